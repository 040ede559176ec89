"""Base classes of methods, tasks and configuration nodes."""

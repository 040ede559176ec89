"""Summaries, exact tests and the bootstrap, as pure functions."""

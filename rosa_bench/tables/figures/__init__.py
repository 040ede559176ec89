"""Figures of a collection of records."""

"""Draws figures of a collection of records."""

"""Turns records into tables, figures and an HTML page."""

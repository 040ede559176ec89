"""Renders the tables as an HTML page."""

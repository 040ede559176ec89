"""The tables as one HTML page."""

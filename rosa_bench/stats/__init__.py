"""Summaries, exact tests and the bootstrap. Pure functions."""

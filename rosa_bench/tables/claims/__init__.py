"""Judges the papers' claims by the records of a suite."""

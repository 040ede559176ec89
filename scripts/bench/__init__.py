"""The parts of `scripts/benchmark.py`, a module each, and what they share."""

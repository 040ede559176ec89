"""Backbones: loading them, and finding in them the weights that methods adapt."""

"""Load backbones and locate the weights that methods adapt."""

"""The wandb mirror of a run."""

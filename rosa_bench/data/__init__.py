"""From data sources to batches of token ids."""

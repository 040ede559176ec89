"""From where rows come to batches of token ids."""

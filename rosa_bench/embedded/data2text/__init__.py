"""The data-to-text half of the embedded world."""

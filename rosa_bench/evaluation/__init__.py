"""Predictions, decoding and scores of a trained model."""

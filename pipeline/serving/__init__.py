"""Prediction on raw media through the code path that made the training features."""

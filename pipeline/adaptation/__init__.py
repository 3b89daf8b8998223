"""Encoders that learn from the training clips before their features are extracted."""

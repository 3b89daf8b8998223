"""Trained models for others: a Hugging Face folder with a card, and ONNX."""

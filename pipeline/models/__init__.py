"""Trainable modules on cached tokens. Nothing in here reads or writes a file."""

"""Affectory: features once, heads many times. See docs/architecture.md for the map."""

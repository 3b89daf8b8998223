"""Weights of frozen encoders: where they come from, and strict loading (see `source` and `load`)."""

from pipeline.storage.memo import sha256

from .load import covered, seeded, state
from .source import SCHEMES, TEXT, Source, config, files, identity, locate, parse

__all__ = ["SCHEMES", "TEXT", "Source", "config", "covered", "files", "identity", "locate", "parse", "seeded", "sha256", "state"]

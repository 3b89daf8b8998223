"""Weights of frozen encoders: where they come from, and strict loading (see `source` and `load`)."""

from pipeline.storage.memo import sha256

from .listing import files
from .load import check_coverage, seeded, state
from .source import SCHEMES, TEXT, Source, config, identity, locate, parse

__all__ = [
    "SCHEMES",
    "TEXT",
    "Source",
    "check_coverage",
    "config",
    "files",
    "identity",
    "locate",
    "parse",
    "seeded",
    "sha256",
    "state",
]

"""Encoders: one file per family, here or in `$AFFECTORY_PARTS/encoders/` (docs/encoders.md)."""

from pipeline.parts import add_own_folder

add_own_folder(__name__, __path__)

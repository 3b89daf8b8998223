"""What every part of a model is: a module with typed options."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pipeline.params.base import Group


class Component(nn.Module):
    """A part chosen by name in YAML, with options that are checked before it is built.

    Attributes:
        Options: closed to unknown keys; flags and whole numbers are strict.
    """

    Options: ClassVar[type[Group]] = Group

    def advance(self, done: float) -> None:
        """Know which share of a phase of training is done, in [0, 1); told before every step."""


def advance(model: nn.Module, done: float) -> None:
    """Tell every component of a model."""
    for part in model.modules():
        if isinstance(part, Component):
            part.advance(done)

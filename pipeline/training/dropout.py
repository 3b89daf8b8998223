"""Dropout that changes on the way."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from pipeline.errors import ParamsError
from pipeline.models.model import is_within
from pipeline.params import Dropout


class DropoutPlan:
    """`training.dropout` on one model.

    Without state: the dropout of an epoch follows from the epoch, so that a resumed run is the uninterrupted one.

    Args:
        model: with its dropout as built. steps: a later one holds before an earlier that has begun.
        curriculum: epochs of the curriculum, None without one.
        strict: a part without dropout is an error; else, as in a variant of fewer streams, it is left.

    Raises:
        ParamsError: there is no dropout in a part, or a step waits for a curriculum that is not there.
    """

    def __init__(self, model: nn.Module, steps: tuple[Dropout, ...], curriculum: int | None, *, strict: bool) -> None:
        self.built = {name: (module, _read(module)) for name, module in model.named_modules() if _read(module) is not None}
        self.steps: list[tuple[int, Dropout]] = []
        for step in steps:
            start = curriculum if step.from_epoch is None else step.from_epoch
            if start is None:
                raise ParamsError(
                    f"training.dropout: {step.part} waits for the end of a curriculum, and none says it; give from_epoch."
                )
            if strict and not any(is_within(name, step.part) for name in self.built):
                raise ParamsError(f"training.dropout: there is no dropout in {step.part}.")
            self.steps.append((start, step))

    def set(self, epoch: int) -> None:
        """Every dropout as it is at `epoch` of the phase, from 0."""
        for name, (module, value) in self.built.items():
            begun = [step for start, step in self.steps if epoch >= start and is_within(name, step.part)]
            _write(module, float(begun[-1].value) if begun else value)


def _read(module: nn.Module) -> float | None:
    """The dropout of a module itself; None where it has none. PyTorch's attention and recurrent layers keep a number."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    return float(module.dropout) if isinstance(module, nn.MultiheadAttention | nn.RNNBase) else None


def _write(module: nn.Module, value: float | None) -> None:
    setattr(module, "p" if isinstance(module, _DropoutNd) else "dropout", value)

"""Streams that read one network: what they share, and what each does with the rows of a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .extractor import Clip, Extractor, Missing, Prepared

#: Of an identity, what is decided after the network has run: which layer, which of its rows, and how they are pooled.
READOUT = ("layer", "rows", "pooling", "rate")


def share_pass(one: Extractor, other: Extractor) -> bool:
    """Whether one pass of the network gives the rows of both, in the batches that either would have alone."""
    if name_network(one) != name_network(other) or (one.budget, one.turns) != (other.budget, other.turns):
        return False
    if one.layer != other.layer and not one.layered:
        return False
    # The same clips would be prepared in two ways; rows of the same inputs can be put together.
    return _same(one.prepare, other.prepare) or "rows" in one.identity


def name_network(extractor: Extractor) -> dict[str, Any]:
    """What of an identity decides what the network is and sees."""
    return {key: value for key, value in extractor.identity.items() if key not in READOUT}


def prepare_together(extractors: Sequence[Extractor]) -> Callable[[Clip], Prepared]:
    """The `prepare` of extractors that share a pass; the first one's batches."""
    first, *others = (one.prepare for one in extractors)
    return first if all(_same(one, first) for one in others) else Together((first, *others))


def _same(one: object, other: object) -> bool:
    """Whether two functions do the same. What cannot be compared is not the same."""
    if isinstance(one, partial) and isinstance(other, partial):
        return (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)
    try:
        return bool(one == other)
    except ValueError:  # arrays
        return False


@dataclass(frozen=True)
class Together:
    """Clip → the inputs of all, with the `rows` that any of them keeps, and which of these each does.

    They see the same inputs and differ in `rows` (L,) bool alone. What the first raises is raised; of another that lacks
    something, no row is kept.
    """

    prepares: tuple[Callable[[Clip], Prepared], ...]

    def __call__(self, clip: Clip) -> Prepared:
        first, *others = (_attempt(prepare, clip) for prepare in self.prepares)
        if isinstance(first, Missing):
            first.alone = any(str(other) != str(first) for other in others)
            raise first
        nothing = np.zeros(len(first.inputs["rows"]), bool)
        chosen = [nothing if isinstance(one, Missing) else one.inputs["rows"] for one in (first, *others)]
        rows = np.logical_or.reduce(chosen)
        times = np.zeros((len(rows), 2), np.asarray(first.times).dtype)
        for one, mine in zip((first, *others), chosen, strict=True):
            if not isinstance(one, Missing):
                times[mine] = one.times
        kept = tuple(mine[rows] for mine in chosen)
        return replace(first, inputs=first.inputs | {"rows": rows}, times=times[rows], kept=kept)

    @property
    def modules(self) -> tuple[str, ...]:
        """What a worker imports for it."""
        found = (getattr(one, "modules", (type(one).__module__,)) for one in self.prepares)
        return tuple(dict.fromkeys(name for names in found for name in names))


def _attempt(prepare: Callable[[Clip], Prepared], clip: Clip) -> Prepared | Missing:
    try:
        return prepare(clip)
    except Missing as missing:
        return missing

"""Which hidden states of a prompt are its features: by name, so that they mean what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor

from pipeline.errors import ParamsError, one_of
from pipeline.params.base import Group, Whole

from .prompt import OWN, Wrapped

#: The places that the first users of Emotion-LLaMA's states took: rows of the image, whatever else the film holds.
LEGACY = (6, 7, 8, 9)


class Absent(Exception):
    """The clip has not what is read."""


class Readout(Group):
    """Which hidden states are kept.

    rows: `last`, the `mean`, `all`, or places counted from 0 (from the end where negative); `legacy` is [6, 7, 8, 9].
    span: of the prompt, in which places are counted; null = the whole.
    layer: 0 is what goes in, k what layer k gives, -1 the last, after its norm; of several, one after the other.
    """

    rows: Literal["last", "mean", "all", "legacy"] | tuple[Whole, ...] = "last"
    span: str | None = None
    layer: Whole | tuple[Whole, ...] = -1

    @field_validator("rows", "layer")
    @classmethod
    def _some(cls, value: object) -> object:
        if value == ():
            raise ValueError("an empty list keeps nothing")
        return value

    @property
    def layers(self) -> tuple[int, ...]:
        """Those kept."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    def check(self, streams: Iterable[str], layers: int) -> None:
        """Raise unless a prompt of these streams has the span, and a model of so many layers those asked for.

        Raises:
            ParamsError: names what there is.
        """
        known = [name for name in (*OWN[:-1], *streams)]
        if self.span is not None and self.span not in known:
            raise one_of("readout.span", self.span, known)
        if self.rows == "legacy" and self.span is not None:
            raise ParamsError("readout.rows legacy counts from the prompt's beginning; leave readout.span null.")
        for layer in self.layers:
            if not -layers - 1 <= layer <= layers:
                raise ParamsError(
                    f"readout.layer {layer}: the model has {layers} layers; write 0 to {layers}, or -1 for the last."
                )

    def read(self, trace: Sequence[Tensor], wrapped: Wrapped) -> Tensor:
        """(k, W) float32 of one clip.

        Args:
            trace: (T, W) of each layer, padded on the right or not.

        Raises:
            Absent: the clip has not the span, or not so many places in it.
        """
        found = wrapped.places(self.span) if self.span is not None else range(len(wrapped))
        if not len(found):
            raise Absent(f"the clip has no {self.span}")
        kept = torch.as_tensor(list(found), device=trace[0].device)
        rows = LEGACY if self.rows == "legacy" else (-1,) if self.rows == "last" else self.rows
        if isinstance(rows, tuple):
            if wrong := [row for row in rows if not -len(kept) <= row < len(kept)]:
                raise Absent(f"{self.span or 'the prompt'} has {len(kept)} places, and readout.rows asks for {wrong[0]}")
            kept = kept[list(rows)]
        states = [trace[layer][kept].float() for layer in self.layers]
        return torch.cat([one.mean(0, keepdim=True) if rows == "mean" else one for one in states])

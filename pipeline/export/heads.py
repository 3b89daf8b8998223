"""The networks of an exported model as ONNX: ready-made features in, what the mean of the networks says out.

What is written is run by onnxruntime at once, beside the networks, over several lengths and masks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.batch import History, Inputs, Tokens
from pipeline.models.pooled import pool_tokens
from pipeline.runs.pretrained.member import Member
from pipeline.runs.pretrained.model import AffectoryModel
from pipeline.runs.pretrained.output import average

from .graphs import OPSET, PARITY, open_session, run_session, trace

PARTS = ("values", "mask", "times")
OUTPUTS = ("probabilities", "dimensions", "trace", "spread", "shares")
#: Batches that are compared: rows of each clip; 0 = it lacks the stream.
LENGTHS = ((1,), (2, 9, 0, 7), (16, 15), (1, 1, 3))


class Head(nn.Module):
    """The networks with plain tensors in and out.

    Raises:
        UserError: a network that ONNX cannot hold.
    """

    def __init__(self, model: AffectoryModel) -> None:
        super().__init__()
        self.model, self.streams = model, tuple(model.config.streams)
        for member in model.list_members():
            spec = member.model.spec
            if spec.language is not None:
                raise UserError(
                    f"fusion {spec.fusion.name} holds layers of a language model, which ONNX does not take from here; "
                    "without --onnx the folder is written, and from_pretrained reads it."
                )

    @property
    def inputs(self) -> list[str]:
        """`audio_values`, `audio_mask`, `audio_times`, …"""
        return [f"{name}_{part}" for name in self.streams for part in PARTS]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """`inputs` in, those of `OUTPUTS` that the networks give out."""
        tokens = {name: Tokens(*given[3 * i : 3 * i + 3]) for i, name in enumerate(self.streams)}
        # Written out, for the number of clips would else be that of the example.
        places = torch.arange(given[1].shape[0])[:, None]
        alone = History(places, torch.zeros_like(places), 0)
        each = [member.model(Inputs(self.read(member, tokens), history=alone)) for member in self.model.list_members()]
        found = average(each, [float(one["weight"]) for one in self.model.config.members])
        return tuple(found[name] for name in OUTPUTS if name in found)

    @staticmethod
    def read(member: Member, streams: dict[str, Tokens]) -> dict[str, Tokens]:
        """As `Member.read`, of clips that need no shortening."""
        result = {}
        for name, spec in member.model.spec.streams.items():
            normalised = streams[name] if spec.pooling == "states" else member.normalisation[name](streams[name])
            result[name] = pool_tokens(normalised, spec.pooling, spec.axis)
        return result

    def draw(self, lengths: Sequence[int], seed: int) -> tuple[Tensor, ...]:
        """Inputs of clips of these lengths; each stream is a little longer than the one before, and lacks another clip."""
        generator = torch.Generator().manual_seed(seed)
        given: list[Tensor] = []
        for place, shape in enumerate(self.model.config.streams.values()):
            counts = [n + place if n and (i + place) % 3 != 2 else 0 for i, n in enumerate(lengths)]
            longest = max([1, *counts])
            mask = torch.arange(longest) < torch.tensor(counts)[:, None]
            begin = torch.arange(longest).float().expand(len(lengths), longest) / (2 + place)
            values = torch.randn(len(lengths), longest, *shape, generator=generator)
            given += [values, mask, torch.stack([begin, begin + 1 / (2 + place)], -1)]
        return tuple(given)

    @property
    def limit(self) -> int | None:
        """Rows of a stream beyond which the networks would read it shortened, or in windows; None = there is no such."""
        members = self.model.list_members()
        windows = [one.model.spec.window for one in members]
        known = [*(one.max_tokens for one in members), *(window.tokens for window in windows if window)]
        return min((one for one in known if one), default=None)


def write_head(model: AffectoryModel, path: Path) -> float:
    """Write the networks as ONNX, with free numbers of clips and of rows.

    Returns:
        The largest difference to the networks, over lengths and masks.

    Raises:
        UserError: a network that ONNX cannot hold, or one that says something else as ONNX.
    """
    head = Head(model).eval()
    rows = {f"{name}_{part}": f"{name}_rows" for name in head.streams for part in PARTS}
    example = head.draw((3, 5, 4), 0)
    with torch.inference_mode():
        given = model(*_as_streams(head, example))
    names = [name for name in OUTPUTS if name in given]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, on shapes that are those of the example: parity is looked at below
        trace(
            head,
            example,
            str(path),
            input_names=head.inputs,
            output_names=names,
            dynamic_axes={name: {0: "clips", 1: axis} for name, axis in rows.items()} | {name: {0: "clips"} for name in names},
            opset_version=OPSET,
        )
    session, worst = open_session(path), 0.0
    for seed, lengths in enumerate(LENGTHS, 1):
        one = head.draw(lengths, seed)
        with torch.inference_mode():
            wanted = head(*one)
        found = run_session(session, dict(zip(head.inputs, one, strict=True)))
        worst = max([worst, *(float(np.abs(found[n] - w.numpy()).max()) for n, w in zip(names, wanted, strict=True))])
    if not worst <= PARITY:
        raise UserError(f"as ONNX the networks say something else (by {worst:.1e}); it is not written.")
    return worst


def _as_streams(head: Head, given: Sequence[Tensor]) -> tuple[dict[str, Tensor], ...]:
    values, mask, times = (dict(zip(head.streams, given[i::3], strict=True)) for i in range(3))
    return values, mask, times

"""What a model reads and gives: padded tokens of several streams in, named outputs out.

B clips, R rows predicted (R = B, or fewer with history), T tokens, D a stream's width, W the fused width, M streams,
C classes, K dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Predictions by name: `emotion` (R, C) logits, `dimensions` (R, K), `frames` (R, T, K) along the base stream, `embedding`
#: (R, W), `shares` (R, M), `projection` (R, P), `projection.frames` (R, T, P), zero where there is no token; `emotion@audio`
#: is the output `emotion` of the stream `audio` alone. Beside dimensions may stand how sure they are, see `name_variance`.
Outputs = dict[str, Tensor]


def name_variance(output: str) -> str:
    """The output that holds the logarithm of the variance of `output`, of the same shape.

    >>> name_variance("dimensions@audio")
    'dimensions.log_variance@audio'
    """
    whole, at, stream = output.partition("@")
    return f"{whole}.log_variance{at}{stream}"


class Tokens(NamedTuple):
    """One stream of a batch.

    Attributes:
        values: (B, T, D) float32, or (B, T, L, D) when every hidden layer was kept. Padding is zero
            and never read.
        mask: (B, T) bool, true where a token is; a clip without this stream has none.
        times: (B, T, 2) float32, start and end of each token, seconds from clip start.
    """

    values: Tensor
    mask: Tensor
    times: Tensor

    @property
    def present(self) -> Tensor:
        """(B,) bool: the clip has this stream."""
        return self.mask.any(1)

    def to(self, device: str | torch.device) -> Tokens:
        """The same on another device."""
        return Tokens(self.values.to(device), self.mask.to(device), self.times.to(device))


def is_over_time(output: str) -> bool:
    """Whether an output has a row for each instant of the time base.

    >>> is_over_time("frames"), is_over_time("projection.frames"), is_over_time("frames.log_variance"), is_over_time("projection")
    (True, True, True, False)
    """
    return "frames" in output.partition("@")[0].split(".")


class Text(NamedTuple):
    """Token ids of what is said, for a language model: ids (B, L) int64, mask (B, L) bool."""

    ids: Tensor
    mask: Tensor


class History(NamedTuple):
    """The turns of a dialogue around each of R predicted ones, in the order they are spoken.

    Attributes:
        places: (R, K) int64 positions among the B clips, -1 none.
        voices: (R, K) int64 who speaks, as seen from the predicted turn: 0 its own speaker, 1, 2, … the others by how recently
            they spoke (whoever speaks only later comes after them), -1 unknown.
        at: the column of the predicted turn; the last one where no later turn is seen.
    """

    places: Tensor
    voices: Tensor
    at: int

    @property
    def rows(self) -> Tensor:
        """(R,) positions of the predicted clips."""
        return self.places[:, self.at]

    @property
    def here(self) -> Tensor:
        """(R, K) bool: there is such a turn."""
        return self.places >= 0

    def to(self, device: str | torch.device) -> History:
        """The same on another device."""
        return History(self.places.to(device), self.voices.to(device), self.at)


class Inputs(NamedTuple):
    """A batch.

    Attributes:
        streams: by name; a stream a clip lacks has an all-false mask.
        history: which clips are predicted, and the turns around them. None: every clip is predicted, and from itself alone.
    """

    streams: dict[str, Tokens]
    text: Text | None = None
    history: History | None = None


class Targets(NamedTuple):
    """Truth of the R rows predicted.

    Attributes:
        emotion: (R,) int64, -1 unknown. dimensions: (R, K) float32, NaN unknown.
        frames: (R, T, K) float32 along the base stream's tokens, NaN unknown, or None.
        domain: (R,) int64 each, -1 unknown: whose clip it is (`speaker`, `corpus`).
        weight: (R,) float32; 0 takes no part.
        clip: (R,) int64 which clip a row is of, where clips are there more than once; None = each is another.
        taught: (R, D) float32 each, NaN where it is lacking: the mean row of a stream that is a teacher.
        several: (R, C) bool, every emotion of a clip that has several, its own among them; None = no clip has.
    """

    emotion: Tensor
    dimensions: Tensor
    frames: Tensor | None
    domain: dict[str, Tensor]
    weight: Tensor
    clip: Tensor | None = None
    taught: Mapping[str, Tensor] = MappingProxyType({})
    several: Tensor | None = None

    @property
    def owner(self) -> Tensor:
        """(R,) int64 which clip each row is of."""
        return torch.arange(len(self.weight), device=self.weight.device) if self.clip is None else self.clip

    def of(self, output: str) -> Tensor:
        """The truth that an output is held against: `emotion@audio` against `emotion`, `speaker` against the domain."""
        name = output.partition("@")[0]
        if name in self.domain:
            return self.domain[name]
        truth = {"emotion": self.emotion, "dimensions": self.dimensions, "frames": self.frames}[name]
        assert truth is not None, f"no {name} among the targets"
        return truth


class Fused(NamedTuple):
    """What a fusion gives.

    Attributes:
        vector: (B, W).
        tokens: (B, T, W) at the base stream's instants, or None when nothing is predicted over time.
        parts: (B, M, W) each stream alone: late fusion, auxiliary losses, attribution.
        present: (B, M) bool.
        shares: (B, M) how much each stream counts, summing to one over those present, or None.
        past: (B, T, W) what is known of the clip at each instant of a causal model; None: all of it, the vector.
    """

    vector: Tensor
    tokens: Tokens | None
    parts: Tensor
    present: Tensor
    shares: Tensor | None
    past: Tensor | None = None

    def alone(self, stream: int) -> Fused:
        """The view of a head that sees one stream."""
        return self._replace(vector=self.parts[:, stream], tokens=None, shares=None, past=None)


def running_mean(tokens: Tokens) -> Tensor:
    """(B, T, H) → (B, T, H), at each token the mean of those up to it.

    >>> values, mask = torch.tensor([[[2.0], [6.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> running_mean(Tokens(values, mask, torch.zeros(1, 3, 2))).flatten().tolist()
    [2.0, 4.0, 4.0]
    """
    mask = tokens.mask[..., None]
    return tokens.values.masked_fill(~mask, 0.0).cumsum(1) / mask.cumsum(1).clamp(min=1)


def drop_streams(inputs: Inputs, names: Iterable[str]) -> Inputs:
    """The batch with these streams missing in every clip.

    >>> sound = Tokens(torch.zeros(2, 3, 4), torch.ones(2, 3).bool(), torch.zeros(2, 3, 2))
    >>> drop_streams(Inputs({"audio": sound}), ["audio"]).streams["audio"].present.tolist()
    [False, False]
    """
    gone = set(names)
    return inputs._replace(
        streams={n: t._replace(mask=torch.zeros_like(t.mask)) if n in gone else t for n, t in inputs.streams.items()}
    )


def choose_rows(inputs: Inputs, rows: Tensor) -> Inputs:
    """The batch in which these rows (r,) of all that are predicted are, with the turns around them and no others.

    >>> sound = Tokens(torch.arange(4.0).view(4, 1, 1), torch.ones(4, 1).bool(), torch.zeros(4, 1, 2))
    >>> history = History(torch.tensor([[-1, 0], [0, 2], [2, 3]]), torch.zeros(3, 2, dtype=torch.int64), 1)
    >>> chosen = choose_rows(Inputs({"audio": sound}, history=history), torch.tensor([2]))
    >>> chosen.streams["audio"].values.flatten().tolist(), chosen.history.places.tolist()
    ([2.0, 3.0], [[0, 1]])
    """
    history = inputs.history
    if history is not None:
        places, voices = history.places[rows], history.voices[rows]
        rows = places[places >= 0].unique()
        history = History(torch.where(places >= 0, torch.searchsorted(rows, places), -1), voices, history.at)
    text = inputs.text and Text(*(one[rows] for one in inputs.text))
    return Inputs({name: Tokens(*(one[rows] for one in part)) for name, part in inputs.streams.items()}, text, history)


def leave_out_prompt(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows (T, ...) that last some time: those of a prompt around a clip's words last none."""
    lasting = times[:, 1] > times[:, 0]
    return values[lasting], times[lasting]


def shorten(values: np.ndarray, times: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` rows: adjacent rows are averaged, their times joined.

    Args:
        values: (T, ...). times: (T, 2).

    >>> shorten(np.array([[1.0], [3.0], [5.0]]), np.array([[0, 1], [1, 2], [2, 3]]), 2)[1].tolist()
    [[0, 1], [1, 3]]
    """
    if len(values) <= limit:
        return values, times
    edges = np.linspace(0, len(values), limit + 1).astype(np.int64)
    counts = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
    return (
        np.add.reduceat(values, edges[:-1], axis=0) / counts,
        np.stack([times[edges[:-1], 0], times[edges[1:] - 1, 1]], 1),
    )

"""Statistics of pooled rows, taken before a model learns."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from pipeline.errors import one_of
from pipeline.models.pooled import Standardise
from pipeline.models.spec import ModelSpec
from pipeline.params import Params

from .data.dataset import Dataset


def fit_statistics(parts: Mapping[str, Standardise], spec: ModelSpec, data: Dataset, rows: Tensor, params: Params) -> None:
    """Standardise each stream over the clips that have it; a stream of d numbers then times sqrt(weight · widest / d).

    So that streams make up as much of the distance between clips as one another, whatever their width.

    Args:
        parts: by stream. data: as the model reads it. rows: clips to take the statistics of.

    Raises:
        ParamsError: a weight for a stream that is not there.
    """
    weights = params.temporal.weights
    if unknown := sorted(set(weights) - set(params.streams)):
        raise one_of("stream in temporal.weights", unknown[0], params.streams)
    widest = max(stream.reads for stream in spec.streams.values())
    for name, part in parts.items():
        stream = data.streams[name]
        where, mask = stream.gather(rows)
        part.fit(stream.values[where[mask]], math.sqrt(float(weights.get(name, 1.0)) * widest / spec.streams[name].reads))

"""Statistics of features, taken before a model learns."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from pipeline.errors import one_of
from pipeline.models.fusion.llama import Llama
from pipeline.models.model import EmotionModel
from pipeline.models.pooled import Standardise
from pipeline.models.spec import ModelSpec
from pipeline.params import Params

from .data.dataset import Dataset

#: Clips whose words are looked at.
SAMPLE = 512


def observe_words(model: EmotionModel, data: Dataset, rows: Tensor) -> None:
    """Let a fusion that holds a language model see what its words look like, of some of the clips at `rows`."""
    language = model.spec.language
    if isinstance(model.fusion, Llama) and language is not None and language.stream is not None:
        stream = data.streams[language.stream]
        model.fusion.observe(stream.tokens(rows[stream.present[rows]][:SAMPLE]))


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

"""What a model's attention looked at, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.models.attention import read_attention
from pipeline.models.batch import Inputs
from pipeline.models.model import Model


def write_attention(path: Path, model: Model, inputs: Inputs) -> None:
    """Weights of every attention of the last clip (heads, queries, keys), and `times.NAME`, the seconds of each stream's tokens.

    Raises:
        UserError: the model has no attention, or the file cannot be written.
    """
    maps: dict[str, Any] = {name: one[-1].numpy() for name, one in read_attention(model, inputs).items()}
    if not maps:
        raise UserError("this model has no attention to write; take another fusion, or temporal.layers of 1 or more.")
    times: dict[str, Any] = {f"times.{name}": one.times[-1][one.mask[-1]].numpy() for name, one in inputs.streams.items()}
    try:
        with path.open("wb") as file:  # by its name, numpy would add a suffix
            np.savez_compressed(file, **maps, **times)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error

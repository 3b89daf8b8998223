"""A trained run on disk: `model.safetensors`, `config.json`, `history.json`; and back again.

The tensors hold what was learned (`model.…`) and what raw features are normalised with (`normalisation.…`), so
that a run folder and the features of a clip are all a prediction needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch

from pipeline.errors import StoreError
from pipeline.models.model import Model
from pipeline.models.spec import ModelSpec
from pipeline.storage.atomic import atomic_file, atomic_folder, to_finite, write_json

from .folders import CONFIG, HISTORY, VERSION, WEIGHTS, read_config
from .language import build

#: Stream → mean and standard deviation, each (D,) or (L, D).
Normalisation = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class TrainedModel:
    """A model with what it needs to read raw features.

    Attributes:
        config: content of `config.json`. model: in evaluation mode, on the CPU.
    """

    config: dict
    model: Model
    normalisation: Normalisation

    @property
    def streams(self) -> tuple[str, ...]:
        """Names, in the model's order."""
        return tuple(self.model.spec.streams)


def save_run(
    folder: str | Path,
    model: Model,
    normalisation: Normalisation,
    config: dict,
    history: Sequence[Mapping[str, object]],
) -> None:
    """Write a run folder, complete or not at all."""
    folder = Path(folder)
    tensors = {f"model.{name}": value.detach().cpu().numpy() for name, value in model.trainable().items()}
    for name in model.spec.streams:
        mean, std = normalisation[name]
        tensors |= {f"normalisation.{name}.mean": mean, f"normalisation.{name}.std": std}
    with atomic_folder(folder, keep=HISTORY) as made:
        with atomic_file(made / WEIGHTS) as temporary:
            safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in sorted(tensors.items())}, temporary)
        write_json(made / CONFIG, {"version": VERSION, "model": model.spec.model_dump(mode="json"), **config})
        write_json(made / HISTORY, [{k: to_finite(v) for k, v in row.items()} for row in history])


def load_run(folder: str | Path) -> TrainedModel:
    """Read a run folder.

    Raises:
        StoreError: it is not one, it is of another version, or its tensors do not fit its model.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = build(ModelSpec.model_validate(config["model"]))
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    try:
        model.load_trainable({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise StoreError(f"{folder}/{WEIGHTS} does not fit its config.json; run `dvc repro train`.") from error
    normalisation = {
        name: (tensors[f"normalisation.{name}.mean"].numpy(), tensors[f"normalisation.{name}.std"].numpy())
        for name in model.spec.streams
    }
    return TrainedModel(config, model.eval(), normalisation)

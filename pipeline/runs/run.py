"""A trained run on disk: `model.safetensors`, `config.json`, `history.json`; and back again.

The tensors hold the weights (`model.…`) and what raw features are normalised with (`normalisation.…`), so
that a run folder and the features of a clip are all a prediction needs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from pipeline.errors import StoreError, one_of
from pipeline.models.batch import Tokens, shorten
from pipeline.models.model import EmotionModel, ModelSpec
from pipeline.storage.atomic import atomic_file, atomic_folder, write_json
from pipeline.training.data.dataset import Dataset

VERSION = 1


@dataclass(frozen=True)
class Prediction:
    """What a model says about one clip.

    Attributes:
        probabilities: (C,) in the order of `classes`, or None.
        dimensions: (K,) in [-1, 1] in the order of `names`, or None.
        trace: (T, K) along the base stream, or None (per clip only, or that stream is missing).
        times: (T, 2) seconds of the trace, or None.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    probabilities: np.ndarray | None
    dimensions: np.ndarray | None
    trace: np.ndarray | None
    times: np.ndarray | None

    @property
    def emotion(self) -> str | None:
        """The likeliest class."""
        return None if self.probabilities is None else self.classes[int(self.probabilities.argmax())]


@dataclass(frozen=True)
class TrainedModel:
    """A model with what it needs to read raw features.

    Attributes:
        config: content of `config.json`. model: in evaluation mode, on the CPU.
        normalisation: stream → (mean, std), each (D,) or (L, D).
    """

    config: dict
    model: EmotionModel
    normalisation: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.model.spec.streams)

    def tokens(self, features: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Tokens]:
        """Raw features of one clip as a batch of one; streams left out, or without rows, are missing.

        Args:
            features: stream → (values (T, D) or (T, L, D), times (T, 2)) as the stream's extractor gives them.

        Raises:
            StoreError: unknown stream, or rows of another width than the model was trained on.
        """
        for name in features:
            if name not in self.streams:
                raise one_of("stream", name, self.streams, StoreError)
        result = {}
        for name, spec in self.model.spec.streams.items():
            shape = (spec.levels, spec.width) if spec.levels else (spec.width,)
            values, times = features.get(name) or (np.zeros((0, *shape)), np.zeros((0, 2)))
            values, times = np.asarray(values, np.float32), np.asarray(times, np.float32)
            if values.shape[1:] != shape:
                raise StoreError(
                    f"stream {name!r} has rows of shape {values.shape[1:]}; this model was trained "
                    f"on {shape}. Use the encoder it was trained with."
                )
            mean, std = self.normalisation[name]
            values, times = shorten((values - mean) / std, times, self.config["max_tokens"])
            here = len(values) > 0
            result[name] = Tokens(
                torch.from_numpy(values if here else np.zeros((1, *shape), np.float32)).float()[None],
                torch.full((1, max(1, len(values))), here),
                torch.from_numpy(times if here else np.zeros((1, 2), np.float32)).float()[None],
            )
        return result

    @torch.inference_mode()
    def predict(self, features: dict[str, tuple[np.ndarray, np.ndarray]]) -> Prediction:
        """Predict one clip from raw features (see `tokens`)."""
        tokens = self.tokens(features)
        output, spec = self.model(tokens), self.model.spec
        seen = spec.base is not None and output.frames is not None and bool(tokens[spec.base].present)
        return Prediction(
            classes=spec.classes,
            names=spec.dimensions,
            probabilities=None if output.logits is None else output.logits[0].softmax(0).numpy(),
            dimensions=None if output.dimensions is None else output.dimensions[0].numpy(),
            trace=output.frames[0].numpy() if seen else None,
            times=tokens[spec.base].times[0].numpy() if seen else None,
        )


def average(predictions: list[Prediction]) -> Prediction:
    """The mean of several seeds' predictions of one clip."""

    def mean(name: str) -> np.ndarray | None:
        values = [getattr(p, name) for p in predictions]
        return None if any(v is None for v in values) else np.mean(values, 0)

    return Prediction(
        predictions[0].classes, predictions[0].names, *(mean(name) for name in ("probabilities", "dimensions", "trace", "times"))
    )


def save_run(folder: str | Path, model: EmotionModel, data: Dataset, config: dict, history: list[dict]) -> None:
    """Write a run folder, complete or not at all."""
    folder = Path(folder)
    tensors = {f"model.{name}": value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    for name in model.spec.streams:
        stream = data.streams[name]
        tensors |= {f"normalisation.{name}.mean": stream.mean, f"normalisation.{name}.std": stream.std}
    with atomic_folder(folder, keep="history.json") as made:
        with atomic_file(made / "model.safetensors") as temporary:
            safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in sorted(tensors.items())}, temporary)
        write_json(made / "config.json", {"version": VERSION, "model": model.spec.model_dump(mode="json"), **config})
        write_json(made / "history.json", [{k: finite(v) for k, v in row.items()} for row in history])


def load_run(folder: str | Path) -> TrainedModel:
    """Read a run folder.

    Raises:
        StoreError: it is not one, it is of another version, or its tensors do not fit its model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise StoreError(f"{folder} holds no trained model. Run `dvc repro train`.")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("version") != VERSION:
        raise StoreError(f"{folder} was made by another version of this pipeline. Run `dvc repro train`.")
    model = EmotionModel(ModelSpec.model_validate(config["model"]))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise StoreError(f"{folder}/model.safetensors does not fit its config.json; run `dvc repro train`.") from error
    normalisation = {
        name: tuple(tensors[f"normalisation.{name}.{part}"].numpy() for part in ("mean", "std")) for name in model.spec.streams
    }
    return TrainedModel(config, model.eval(), normalisation)


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""How the networks of an exported model are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from pipeline.errors import UserError
from pipeline.runs.run import TrainedModel

from .member import find_shape


class AffectoryConfig(PreTrainedConfig):
    """How the networks are built.

    Attributes:
        members: of each network `model` (a `ModelSpec`), `weight` (what it is worth in the mean), `max_tokens`, and which run
            it is (`variant`, `fold`, `seed`).
        dimensions: names of the values predicted; classes are in `id2label`.
        streams: name → shape (width,) or (levels, width) of a row.
    """

    model_type = "affectory"

    def __init__(
        self,
        members: Sequence[Mapping[str, Any]] = (),
        dimensions: Sequence[str] = (),
        streams: Mapping[str, Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.members = [dict(one) for one in members]
        self.dimensions = list(dimensions)
        self.streams = {name: list(shape) for name, shape in (streams or {}).items()}
        super().__init__(**kwargs)

    @classmethod
    def of(cls, runs: Sequence[TrainedModel], weights: Sequence[float] | None = None) -> AffectoryConfig:
        """That of runs whose predictions are averaged.

        Args:
            weights: of each run; None = all alike.

        Raises:
            UserError: features are normalised over all clips of a speaker or session, which ready-made ones cannot be.
        """
        for run in runs:
            if (unit := run.config["normalise"]) not in ("none", "train"):
                raise UserError(
                    f"this model reads features normalised over all clips of a {unit}, which a clip by itself has not; "
                    "train with training.normalise train to export it."
                )
        spec = runs[0].model.spec
        shares = weights or [1 / len(runs)] * len(runs)
        members = [
            {
                **{name: run.config[name] for name in ("variant", "fold", "seed", "max_tokens")},
                "weight": share,
                "model": run.model.spec.model_dump(mode="json"),
            }
            for run, share in zip(runs, shares, strict=True)
        ]
        labels = dict(enumerate(spec.classes)) or {0: "none"}
        return cls(
            members,
            spec.dimensions,
            {name: find_shape(one) for run in runs for name, one in run.model.spec.streams.items()},
            id2label=labels,
            label2id={name: place for place, name in labels.items()},
            architectures=["AffectoryModel"],
        )

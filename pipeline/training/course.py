"""What stays the same through a run: its clips, and the order they come in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ParamsError, StoreError
from pipeline.models.batch import Inputs, Targets
from pipeline.models.spec import ModelSpec
from pipeline.params import Params, Part
from pipeline.parts import read_options

from .data.dataset import Dataset
from .data.windows import Cut, cut_clips
from .samplers.base import SAMPLERS, Sampler


@dataclass(frozen=True)
class Course:
    """What stays the same through a run.

    Attributes:
        train, val: (n,) rows of the usable clips. turns: how many before and after it each clip is given.
    """

    params: Params
    data: Dataset
    spec: ModelSpec
    train: Tensor
    val: Tensor
    turns: tuple[int, int]
    sampler: Sampler

    def targets(self, rows: Tensor, weight: Tensor | None = None, cut: Cut | None = None) -> Targets:
        """Truth of the clips at `rows`, of all of them or the part that is read."""
        return self.data.targets(rows, self.spec.base, weight, cut)

    def draw(self, rows: Tensor, weight: Tensor | None, order: torch.Generator) -> tuple[Inputs, Targets]:
        """The clips at `rows` as they are learned from: in a random window where they are longer than one, in a random view."""
        cut = None if self.spec.window is None else cut_clips(self.data.streams, self.spec, rows, draw=order)
        inputs = self.data.batch(rows, tuple(self.spec.streams), self.turns, draw=order, cut=cut)
        return inputs, self.targets(rows, weight, cut)

    def sample(self, order: torch.Generator, weight: Tensor | None) -> Iterator[Tensor]:
        """Places in `train`, batch by batch, for one epoch: of the clips that weigh something.

        Raises:
            ParamsError: none does.
        """
        seen = torch.arange(len(self.train), device=self.train.device) if weight is None else weight.nonzero()[:, 0]
        if not len(seen):
            raise ParamsError("training.curriculum gives every training clip the weight 0; nothing is left to learn from.")
        rows = self.train[seen]
        for places in self.sampler.sample(self.targets(rows), self.data.turns[rows, 0], order):
            yield seen[places]


def prepare(spec: ModelSpec, data: Dataset, params: Params) -> Course:
    """Choose the clips of a run.

    Raises:
        StoreError: no labelled training clip, or no labelled validation clip.
        ParamsError: an unknown sampler or option.
    """
    names = tuple(spec.streams)
    usable = data.labelled() & data.present(names)
    refit = params.training.refit
    train, val = (part[usable[part]] for part in (data.rows("train", *(["val"] if refit else [])), data.rows("val")))
    for part, role in ((train, "training"), (val, "validation")):
        if not len(part) and not (refit and role == "validation"):
            raise StoreError(
                f"fold {data.fold} has no labelled {role} clip with {' or '.join(names)}; "
                "see `protocol` in params.yaml and the coverage that `index` prints."
            )
    return Course(params, data, spec, train, val, spec.turns, build_sampler(params))


def build_sampler(params: Params) -> Sampler:
    """The sampler chosen; by default clips, or dialogues where clips see earlier turns, which are then encoded once.

    Raises:
        ParamsError: an unknown sampler or option, or one that splits the dialogues of a context.
    """
    chosen = params.training.sampler or Part(name="dialogues" if params.context else "clips")
    part = SAMPLERS.find(chosen.name)
    if params.context and not part.whole:
        said = f"{chosen.name} splits dialogues, and there is a context; use dialogues, or context none"
        raise ParamsError(f"training.sampler: {said}.")
    options = read_options(part.Options, chosen.options, "training.sampler.options")
    return part(params.training.batch_size, options)

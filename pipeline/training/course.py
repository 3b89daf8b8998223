"""What stays the same through a run: its clips, and the order they come in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ParamsError, StoreError
from pipeline.models.batch import Inputs, Outputs, Targets
from pipeline.models.model import EmotionModel
from pipeline.models.spec import ModelSpec
from pipeline.params import Params, Part
from pipeline.parts import read_options
from pipeline.runs.predict import predict_batches

from .data.dataset import Dataset
from .data.pairs import join_targets, pair_windows
from .data.views import predict_view
from .data.windows import Cut, cut_clips
from .samplers.base import SAMPLERS, Sampler
from .team import ALONE, Team

#: Clips predicted at a time.
AT_ONCE = 256


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

    def show(self, places: Tensor, weight: Tensor | None, order: torch.Generator) -> tuple[Inputs, Targets]:
        """A batch to learn from: the clips at `places` of `train` in a view drawn by `order`, and in a window so drawn where they
        are longer than one; or as two windows each.

        Args:
            weight: (n,) of all training clips; None = all alike.
        """
        rows, windowed = self.train[places], self.spec.window is not None and self.params.training.pairs is None
        cut = cut_clips(self.data.streams, self.spec, rows, draw=order) if windowed else None
        inputs = self.data.batch(rows, tuple(self.spec.streams), self.turns, draw=order, cut=cut)
        return self._pair(inputs, self.targets(rows, None if weight is None else weight[places], cut), order)

    def examine(self, model: EmotionModel, team: Team = ALONE) -> tuple[Outputs, Targets]:
        """What the model makes of the validation clips, and their truth; windows are the same every time."""
        if self.params.training.pairs is None:
            return self._predict(model, self.val, team), self.targets(self.val)
        order, inputs, targets = torch.Generator().manual_seed(0), [], []
        for rows, whole in zip(self.val.split(AT_ONCE), self.batches(self.val), strict=True):
            cut, truth = self._pair(whole, self.targets(rows), order)
            inputs.append(cut)
            targets.append(truth)
        return predict_batches(model, inputs), join_targets(targets)

    def look(self, model: EmotionModel, team: Team = ALONE) -> Outputs:
        """What the model makes of the training clips."""
        return self._predict(model, self.train, team)

    def _predict(self, model: EmotionModel, rows: Tensor, team: Team) -> Outputs:
        if self.spec.window is not None:  # whose number differs from clip to clip
            return predict_view(model, self.data, rows, size=AT_ONCE)
        return team.predict(lambda own: predict_view(model, self.data, own, size=AT_ONCE), rows)

    def batches(self, rows: Tensor) -> Iterator[Inputs]:
        """The clips at `rows`, in order."""
        return self.data.batches(rows, tuple(self.spec.streams), self.turns, AT_ONCE)

    def _pair(self, inputs: Inputs, targets: Targets, order: torch.Generator) -> tuple[Inputs, Targets]:
        pairs, base = self.params.training.pairs, self.spec.base
        if pairs is None or base is None:
            return inputs, targets
        return pair_windows(inputs, targets, base, pairs, order)

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


def prepare(spec: ModelSpec, data: Dataset, params: Params, *, unlabelled: bool = False) -> Course:
    """Choose the clips of a run, or of a phase of it.

    Args:
        unlabelled: take those without labels, too.

    Raises:
        StoreError: no labelled training clip, or no labelled validation clip.
        ParamsError: an unknown sampler or option.
    """
    names = tuple(spec.streams)
    usable = data.present(names) & (data.labelled() | unlabelled)
    refit = params.training.refit
    train, val = (part[usable[part]] for part in (data.rows("train", *(["val"] if refit else [])), data.rows("val")))
    for part, role in ((train, "training"), (val, "validation")):
        if not len(part) and not (refit and role == "validation"):
            raise StoreError(
                f"fold {data.fold} has no {'' if unlabelled else 'labelled '}{role} clip with {' or '.join(names)}; "
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

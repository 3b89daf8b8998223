"""By how much the annotators disagreed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.models.batch import Outputs, Targets
from pipeline.training.data.labels import extra_labels

from .base import Roll
from .ordering import Ordered, OrderOptions


class Disagreement(Ordered):
    """The clips first that annotators were of one mind about: by the entropy of their votes (after Lotfian & Busso 2019).

    Votes are in the manifest's `labels`: a count for each label, or a list of labels. A clip without joins at the end.
    """

    class Options(OrderOptions):
        """votes: the key they are under."""

        votes: str = "votes"

    options: Options
    entropy: Tensor

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        super().observe(roll)
        values = [measure_entropy(labels.get(self.options.votes)) for labels in extra_labels(roll.table)]
        if all(math.isnan(value) for value in values):
            raise StoreError(f"training.curriculum: no training clip has {self.options.votes!r} among the manifest's labels.")
        self.entropy = torch.tensor(values, dtype=torch.float64, device=roll.emotion.device)

    def score(self, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Ordered.score`."""
        return self.entropy


def measure_entropy(votes: object) -> float:
    """-Σ p ln p of the shares of votes; NaN without any.

    >>> measure_entropy({"joy": 2, "anger": 0}), round(measure_entropy(["joy", "anger"]), 3)
    (0.0, 0.693)
    """
    if isinstance(votes, Sequence) and not isinstance(votes, str):
        votes = Counter(map(str, votes))
    counts = [float(n) for n in votes.values() if isinstance(n, int | float) and n > 0] if isinstance(votes, Mapping) else []
    total = sum(counts)
    return sum(n / total * math.log(total / n) for n in counts) if counts else math.nan

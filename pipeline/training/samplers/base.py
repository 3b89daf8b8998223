"""Samplers: batches of one epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.models.batch import Targets
from pipeline.params.base import Group
from pipeline.parts import Parts


class Sampler(ABC):
    """Base.

    Args:
        size: clips of a batch.

    Attributes:
        whole: it splits no dialogue, as a context wants it.
    """

    Options: ClassVar[type[Group]] = Group
    whole: ClassVar[bool] = False

    def __init__(self, size: int, options: Group) -> None:
        self.size, self.options = size, options

    @abstractmethod
    def sample(self, targets: Targets, dialogue: Tensor, order: torch.Generator) -> Iterator[Tensor]:
        """Places among the training clips, batch by batch.

        Args:
            targets: of the n training clips. dialogue: (n,) number of the dialogue of each, -1 none.
            order: the source of chance; the same state gives the same epoch.

        Raises:
            ParamsError: clips lack the labels it goes by.
        """


SAMPLERS: Parts[Sampler] = Parts("pipeline.training.samplers", Sampler, "sampler")

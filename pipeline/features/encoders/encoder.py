"""A loaded encoder: a network, and how prepared clips go through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.params.features import Layer

from .extractor import Prepared

if TYPE_CHECKING:
    import torch


class Encoder(ABC):
    """What an extractor's `load` gives. A light object that holds its network, so that no framework is imported before it.

    The network comes frozen, in evaluation mode. Who wants it to learn sets `requires_grad` on it or on what is put into
    it in place (adapters); `encode` passes gradients on, and nothing here switches them off.

    Attributes:
        network: the `torch.nn.Module`; None where nothing is learned (computed and imported features).
    """

    network: Any = None

    @abstractmethod
    def encode(self, batch: Sequence[Prepared]) -> list[torch.Tensor] | list[np.ndarray]:
        """Rows of each clip before anything is pooled, in order; they do not depend on the clip's neighbours.

        Returns:
            Per clip (T, ...) rows: (T, D), or (T, L, D) with `layer: all`, T as `Prepared.times` says; on the network's
            device, of its float type (image towers: float32). Arrays where there is no network.
        """

    def compile(self) -> bool:
        """`run.compile`: fuse the kernels from the next batch on. False where inputs differ in length: nothing is done."""
        return False


class Layered(Encoder):
    """An encoder of which several layers can be read in one pass of the network.

    Attributes:
        layers: those that are read, each as in `Stream.layer`; the first is the stream's own.
    """

    layers: tuple[Layer, ...]

    def encode(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """Rows of the first layer; see `Encoder.encode`."""
        return self.encode_layers(batch)[0]

    @abstractmethod
    def encode_layers(self, batch: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """For each of `layers`, what `encode` gives of it: the same numbers, whatever is read beside."""


class Computed(Encoder):
    """An encoder without a network: `prepare` has put the rows under `key`."""

    def __init__(self, key: str = "values", device: str = "cpu") -> None:
        self.key = key

    def encode(self, batch: Sequence[Prepared]) -> list[np.ndarray]:
        """(T, D) float32 of each clip."""
        return [item.inputs[self.key] for item in batch]

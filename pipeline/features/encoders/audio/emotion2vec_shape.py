"""The sizes of an emotion2vec network."""

from __future__ import annotations

from dataclasses import dataclass

#: Kernel → stride of the convolutional front end; weights do not tell strides.
STRIDES = {10: 5, 3: 2, 2: 2}


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; those of emotion2vec base by default.

    Attributes:
        width: of the features. heads: of attention. inner: of a block's feed-forward layer.
        blocks: those a checkpoint calls its context encoder and the others.
        front: channels of the convolutional front end. kernels: of it.
        positions: convolutions that add the place. position_kernel, position_groups: of them.
        extra: tokens before the frames. scales: of the slopes of attention; 1, or one per block.
    """

    width: int = 768
    heads: int = 12
    inner: int = 3072
    blocks: int = 12
    front: int = 512
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    positions: int = 5
    position_kernel: int = 19
    position_groups: int = 16
    extra: int = 10
    scales: int = 1

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(STRIDES[kernel] for kernel in self.kernels)

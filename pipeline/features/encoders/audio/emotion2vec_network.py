"""The network of emotion2vec (Ma et al. 2023, arXiv:2312.15185), which is data2vec 2.0's for sound, and its checkpoint.

Seven convolutions make 50 frames per second; five grouped convolutions add the place; some learned tokens
stand before the frames; twelve post-norm transformer blocks follow, the first of which a checkpoint calls the
context encoder. Attention falls off linearly with distance, each head at its own slope times a learned scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import WeightsError
from pipeline.weights import inside

from .emotion2vec_shape import STRIDES, Shape
from .unpadded import Unpadded

_AUDIO = "modality_encoders.AUDIO."
#: What training needed and a feature never reads.
DROPPED = (f"{_AUDIO}decoder.", "_ema", "proj.", "center", "regression_head", "utterance", "mask_emb")
_NAMES = (
    (rf"{_AUDIO}local_encoder\.conv_layers\.(\d+)\.0\.", r"front.\1.conv."),
    (rf"{_AUDIO}local_encoder\.conv_layers\.(\d+)\.2\.1\.", r"front.\1.norm."),
    (rf"{_AUDIO}project_features\.1\.", "project.0."),
    (rf"{_AUDIO}project_features\.2\.", "project.1."),
    (rf"{_AUDIO}context_encoder\.norm\.", "norm."),
    (rf"{_AUDIO}alibi_scale$", "scale"),
    (rf"{_AUDIO}extra_tokens$", "extra"),
)


def shape(state: Mapping[str, torch.Tensor], origin: object) -> Shape:
    """The sizes a checkpoint's weights tell, under the names `rename_keys` gives.

    Raises:
        WeightsError: it is no emotion2vec checkpoint.
    """

    def count(prefix: str) -> int:
        return len({key.split(".")[1] for key in state if key.startswith(prefix)})

    try:
        kernels = tuple(state[f"front.{i}.conv.weight"].shape[2] for i in range(count("front.")))
        width, per_group, kernel = state["position.0.weight"].shape
        found = Shape(
            width,
            state["scale"].shape[-3],
            state["blocks.0.mlp.fc1.weight"].shape[0],
            count("blocks."),
            state["front.0.conv.weight"].shape[0],
            kernels,
            count("position."),
            kernel,
            width // per_group,
            state["extra"].shape[1],
            state["scale"].shape[0],
        )
        _ = found.strides
        if width % found.heads:
            raise ValueError(f"{found.heads} heads do not divide {width}")
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"{origin} is no emotion2vec checkpoint ({type(error).__name__}: {error}); choose the family that fits it."
        ) from error
    return found


def rename_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A published checkpoint's weights under this network's names; what a feature never reads is left out."""
    state = inside.unwrap(state)
    # FunASR puts d2v_model. before all, training programs model. or more.
    prefix = next((key[: key.index(_AUDIO)] for key in state if _AUDIO in key), "")
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.startswith(DROPPED)}
    early = [int(found[1]) for key in state if (found := re.match(rf"{_AUDIO}context_encoder\.blocks\.(\d+)\.", key))]
    first = max(early, default=-1) + 1
    result = {}
    for key, value in state.items():
        for pattern, new in _NAMES:
            key = re.sub(f"^{pattern}", new, key)
        if found := re.match(rf"{_AUDIO}relative_positional_encoder\.(\d+)\.0\.", key):
            key = f"position.{int(found[1]) - 1}.{key[found.end() :]}"  # the first step there turns axes
        elif key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            key = f"blocks.{int(number) + first}.{rest}"
        result[key.removeprefix(f"{_AUDIO}context_encoder.")] = value
    if "scale" in result and result["scale"].dim() == 4:
        result["scale"] = result["scale"][None]
    return result


def slopes(heads: int) -> torch.Tensor:
    """(heads,) of ALiBi (Press et al. 2022): 2^(-8 i / n) for a power of two, else every other of the next power's."""
    whole = 2 ** math.floor(math.log2(heads))

    def powers(n: int) -> list[float]:
        return [2.0 ** (-8 * (i + 1) / n) for i in range(n)]

    return torch.tensor(powers(whole) + powers(2 * whole)[::2][: heads - whole])


class Front(nn.Module):
    """Convolution, LayerNorm over channels, GELU."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, kernel, STRIDES[kernel], bias=False)
        self.norm = nn.LayerNorm(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, S) → (B, C', S')."""
        return F.gelu(self.norm(self.conv(x).transpose(1, 2)).transpose(1, 2))


class Position(nn.Conv1d):
    """Grouped convolution over frames that keeps their number, LayerNorm without weights, GELU."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) → (B, T, D)."""
        found = super().forward(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
        return F.gelu(F.layer_norm(found, found.shape[-1:]))


class Block(nn.Module):
    """Attention and feed-forward layer, each with its residual and then its norm."""

    def __init__(self, size: Shape) -> None:
        super().__init__()
        self.heads = size.heads
        self.attn = nn.ModuleDict({"qkv": nn.Linear(size.width, 3 * size.width), "proj": nn.Linear(size.width, size.width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(size.width, size.inner), "fc2": nn.Linear(size.inner, size.width)})
        self.norm1, self.norm2 = nn.LayerNorm(size.width), nn.LayerNorm(size.width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(B, T, D), (B, heads, T, T) added to the scores → (B, T, D)."""
        query, key, value = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(x.dtype))
        x = self.norm1(x + self.attn["proj"](seen.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x))))


class Network(nn.Module):
    """Waveforms → hidden states; what a clip gives does not depend on the clips beside it."""

    def __init__(self, size: Shape) -> None:
        super().__init__()
        self.size = size
        channels = [1, *[size.front] * len(size.kernels)]
        self.front = nn.Sequential(*(Front(channels[i], size.front, kernel) for i, kernel in enumerate(size.kernels)))
        self.project = nn.Sequential(nn.LayerNorm(size.front), nn.Linear(size.front, size.width))
        places = (Position(size.width, size.position_kernel, size.position_groups) for _ in range(size.positions))
        self.position = nn.Sequential(*places)
        self.extra = nn.Parameter(torch.randn(1, size.extra, size.width))
        self.scale = nn.Parameter(torch.ones(size.scales, 1, size.heads, 1, 1))
        self.norm = nn.LayerNorm(size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))

    def forward(self, waves: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
        """
        Args:
            waves: (B, S) padded on the right.
            lengths: frames of each clip.

        Returns:
            What enters the first block and what leaves each, (B, T, D).
        """
        x = self.project(self.front(waves[:, None]).transpose(1, 2))
        place = Unpadded(self.position, 1)
        place.lengths = list(lengths) if len(set(lengths)) > 1 else None
        x = torch.cat([self.extra.expand(len(x), -1, -1), x + place(x)], 1)
        x = self.norm(x)
        states = [x]
        bias = self.bias(x.shape[1] - self.size.extra, lengths, x.device)
        for i, block in enumerate(self.blocks):
            states.append(block(states[-1], bias[min(i, len(bias) - 1)]))
        return [state[:, self.size.extra :] for state in states]

    def bias(self, frames: int, lengths: Sequence[int], device: torch.device) -> torch.Tensor:
        """(scales, B, heads, E + frames, E + frames) float32 added to attention scores; -inf where a clip has ended."""
        extra, number = self.size.extra, torch.arange(frames, device=device)
        apart = (number[None] - number[:, None]).abs()
        fall = -slopes(self.size.heads).to(device)[:, None, None] * apart
        fall = F.pad(fall * self.scale.float().clamp_min(0), (extra, 0, extra, 0))
        ended = F.pad(number >= torch.tensor(lengths, device=device)[:, None], (extra, 0))
        return fall.expand(-1, len(lengths), -1, -1, -1).masked_fill(ended[None, :, None, None], -math.inf)

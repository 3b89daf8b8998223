"""The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356) as a network of its own.

Its names and the order of its sums are those of the library transformers, and so are its bits. It stands here because importing
the library's takes longer than hearing a film: nothing but torch is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pipeline.errors import WeightsError
from pipeline.weights import pretrained, state

#: Entries of a checkpoint's config.json that say its shape.
SHAPE = ("d_model", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layers", "num_mel_bins", "max_source_positions")


class Attention(nn.Module):
    """Scaled before the product with the keys, as Whisper was trained."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) of (B, T, D) and a mask (B, 1, 1, T) of the places that may be seen."""
        parts = self.q_proj(hidden) * self.scale, self.k_proj(hidden), self.v_proj(hidden)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous() for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        return self.out_proj(seen.transpose(1, 2).contiguous().flatten(2))


class Layer(nn.Module):
    """Attention, then two linear maps; each of what is normalised, added to what came in."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D)."""
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden), mask)
        hidden = hidden + self.fc2(F.gelu(self.fc1(self.final_layer_norm(hidden))))
        if hidden.dtype == torch.float16:
            most = torch.finfo(torch.float16).max - 1000
            hidden = hidden.clamp(-most, most)
        return hidden


class Network(nn.Module):
    """What `WhisperEncoder` runs, part by part."""

    def __init__(self, width: int, heads: int, inner: int, layers: int, bins: int, places: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(places, width)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.conv1.weight.dtype


class _Undrawn(TorchFunctionMode):
    """Layers made inside have room for their weights and draw none. (A network without room, on `meta`, imports the compiler.)"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == nn.init.__name__:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's config.json describes this network."""
    return config.get("activation_function", "gelu") == "gelu" and all(isinstance(config.get(name), int) for name in SHAPE)


def load(folder: Path, config: Mapping[str, Any], source: object, dtype: str) -> Network:
    """The network with the weights of a checkpoint, strictly loaded; evaluation mode, no gradients.

    Raises:
        WeightsError: the weights do not cover it, or its heads do not divide its width.
    """
    sizes = [config[name] for name in SHAPE]
    if min(sizes) < 1 or config["d_model"] % config["encoder_attention_heads"]:
        raise WeightsError(f"{source} has a configuration that is no Whisper encoder ({dict(zip(SHAPE, sizes, strict=True))}).")
    found = state(folder)
    with _Undrawn():  # every weight is filled below
        network = Network(*sizes)
    return pretrained.assemble(network, found, source, dtype=dtype)

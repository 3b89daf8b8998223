"""A training step of a language model on a device: all its layers, and those above a cached trunk."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .figures import Figure, count_flops, seconds

ADDRESS = "random:0"
#: Shares of the layers that lie in the trunk.
SHARES = (0.0, 2 / 3)


@dataclass(frozen=True)
class Size:
    #: SmolLM2-135M, but for the vocabulary, which the layers do not see.
    width: int = 576
    inner: int = 1536
    layers: int = 30
    heads: int = 9
    clips: int = 16
    #: Tokens of a whole prompt, and of what is kept of it beside a trunk.
    prompt: int = 73
    kept: int = 23
    repeats: int = 5


TINY = Size(width=12, inner=16, layers=6, heads=3, clips=3, prompt=9, kept=4, repeats=1)


def name(share: float) -> str:
    """Of the row."""
    return f"step of a language model, {share:.2g} of the layers in the trunk"


def measure(share: float, size: Size, device: str, dtype: str, peak: float | None) -> Iterable[Figure]:
    """Forward and backward with LoRA of rank 8 at q and v: milliseconds, and the share of what the card can do.

    Args:
        peak: TFLOP/s of a product of large matrices; None = it was not taken.
    """
    import torch

    from pipeline.models.language import LanguageModel, Lora
    from pipeline.models.spec import LanguageSpec
    from pipeline.weights import layers, parse

    architecture = {
        "vocab_size": 256,
        "hidden_size": size.width,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": max(1, size.heads // 3),
        "max_position_embeddings": 2048,
    }
    config, below, count = layers.describe_above(ADDRESS, dict(architecture), share, "share")
    whole = {
        key: value.to(getattr(torch, dtype)) for key, value in layers.make_stand_in(parse(ADDRESS), dict(architecture)).items()
    }
    kept = {f"layers.{i}.": f"layers.{i - below}." for i in range(below, count)}
    state = {new + key[len(old) :]: value for old, new in kept.items() for key, value in whole.items() if key.startswith(old)}
    spec = LanguageSpec(weights=ADDRESS, base="made", config=config, below=below, layers=count, stream="lm", dtype=dtype)
    model = LanguageModel(spec, state | {"norm.weight": whole["norm.weight"]}, Lora()).train().to(device)
    tokens = size.kept if below else size.prompt
    states = torch.randn(size.clips, tokens, size.width, device=device)
    mask = torch.ones(size.clips, tokens, dtype=torch.bool, device=device)

    def step() -> None:
        model(states, mask)[:, -1].float().square().mean().backward()
        if device != "cpu":
            torch.cuda.synchronize()

    step()
    flops = count_flops(step)
    taken = statistics.median(seconds(step) for _ in range(size.repeats))
    note = f"{count - below} of {count} layers, {size.clips} prompts of {tokens} tokens, {dtype}; {flops / 1e9:.3g} GFLOP counted"
    yield Figure(name(share), taken * 1e3, "ms", "", note)
    if peak is not None:
        yield Figure(f"{name(share)}: share of what the card can do", flops / taken / (peak * 1e12), "ratio")

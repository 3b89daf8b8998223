"""Which layers of an encoder can learn: those that are run, and that a gradient of what is stored comes back to.

Both are tried, for a name says neither: some models read the matrix of a projection without running the layer, so that what
stands beside it is never met, and layers behind the one whose states are kept learn nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import ParamsError, one_of
from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.extractor import Prepared
from pipeline.params import Adapt

#: Queries and values of attention as networks call them (Hu et al. 2021, section 7.1); the first that is there counts.
ATTENTION = (("q_proj", "v_proj"), ("query", "value"), ("q", "v"), ("qkv",), ("c_attn",))


def find_reached(encoder: Encoder, prepared: Prepared) -> tuple[list[str], list[str]]:
    """(linear layers, parameters) that learn from a clip, by name."""
    from transformers.pytorch_utils import Conv1D

    network, run = encoder.network, set[str]()
    linear = {name: one for name, one in network.named_modules() if isinstance(one, nn.Linear | Conv1D)}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: run.add(name)

    hooks = [one.register_forward_hook(note(name)) for name, one in linear.items()]
    network.requires_grad_(True)
    try:
        (rows,) = encoder.encode([prepared])
        assert isinstance(rows, torch.Tensor)  # noqa: S101  it has a network
        # No plain sum: behind a last LayerNorm, that of a row is constant.
        (rows.float() * torch.linspace(-1, 1, rows.numel(), device=rows.device).view_as(rows)).sum().backward()
        found = [name for name, one in network.named_parameters() if one.grad is not None and bool(one.grad.any())]
    finally:
        for hook in hooks:
            hook.remove()
        network.requires_grad_(False)
        network.zero_grad(set_to_none=True)
    reached = set(found)
    return [name for name in linear if name in run and f"{name}.weight" in reached], found


def find_blocks(network: nn.Module) -> list[str]:
    """Names of an encoder's blocks, first to last: of all rows of like modules the one with most weights.

    A row is a list, or parts that are numbered (`layer1`, `layer2`, … of a ResNet).

    >>> find_blocks(nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])}))
    ['layers.0', 'layers.1']
    """
    rows: list[tuple[int, list[str]]] = []
    for name, module in network.named_modules():
        stems: dict[tuple[str, type], list[str]] = {}
        for part, one in module.named_children():
            if part[-1:].isdigit():
                stems.setdefault((part.rstrip("0123456789"), type(one)), []).append(part)
        for parts in stems.values():
            size = sum(value.numel() for part in parts for value in module.get_submodule(part).parameters())
            rows.append((size, [f"{name}.{part}".lstrip(".") for part in parts]))
    return max((row for row in rows if len(row[1]) > 1), key=lambda row: row[0], default=(0, list[str]()))[1]


def _under(name: str, blocks: Collection[str]) -> bool:
    return any(f"{name}.".startswith(f"{block}.") for block in blocks)


def _last_blocks(network: nn.Module, count: int | None, where: str) -> list[str] | None:
    """The last blocks; None = wherever.

    Raises:
        ParamsError: the encoder has none, or not so many.
    """
    if count is None:
        return None
    blocks = find_blocks(network)
    if len(blocks) < count:
        raise ParamsError(f"{where}.blocks is {count}, and this encoder has {len(blocks) or 'no'} blocks; take fewer.")
    return blocks[-count:]


def choose_layers(encoder: Encoder, adapt: Adapt, prepared: Prepared, where: str) -> list[str]:
    """Layers that LoRA goes into.

    Args:
        where: the key of `adapt`, for messages.

    Raises:
        ParamsError: none can learn, or one that is named cannot.
    """
    linear, _ = find_reached(encoder, prepared)
    blocks = _last_blocks(encoder.network, adapt.blocks, where)
    if blocks is not None:
        linear = [name for name in linear if _under(name, blocks)]
    if not linear:
        raise ParamsError(
            f"{where}: lora goes into linear layers, and none of this encoder's can learn; take method partial or full."
        )
    for target in adapt.targets:
        if not _ending(linear, (target,)):
            raise one_of(f"layer of {where}.targets that learns", target, sorted({name.rpartition(".")[2] for name in linear}))
    if adapt.targets:
        return _ending(linear, adapt.targets)
    return next((found for names in ATTENTION if (found := _ending(linear, names))), linear)


def _ending(layers: Sequence[str], ends: Sequence[str]) -> list[str]:
    return [name for name in layers if any(f".{name}".endswith(f".{end}") for end in ends)]


def choose_parameters(encoder: Encoder, adapt: Adapt, prepared: Prepared, where: str) -> list[str]:
    """Parameters that learn themselves, with `partial` and `full`.

    Raises:
        ParamsError: see `choose_layers`.
    """
    _, found = find_reached(encoder, prepared)
    count = (adapt.blocks or 1) if adapt.method == "partial" else None
    blocks = _last_blocks(encoder.network, count, where)
    if blocks is not None:
        found = [name for name in found if _under(name, blocks)]
    if not found:
        raise ParamsError(
            f"{where}: no gradient reaches the last {count or 'of the'} blocks from the stream's layer; take more blocks."
        )
    return found


def checkpoint_blocks(network: nn.Module) -> int:
    """Have each block computed again on the way back in place of keeping what it computed (Chen et al. 2016).

    Returns:
        How many blocks there are.
    """
    from torch.utils.checkpoint import checkpoint

    def again(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)

    blocks = find_blocks(network)
    for name in blocks:
        block = network.get_submodule(name)
        block.forward = again(block.forward)
    return len(blocks)

"""Checkpoints of Emotion-LLaMA and MiniGPT-v2: projectors and adapters, without the models they stand between.

llama_proj · feats_llama_proj1/2/3 · cls_tk_llama_proj · llama_model.base_model.model.model.layers.N.….lora_A/B
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import xxhash

from pipeline.errors import WeightsError

from . import inside
from .load import check_coverage, state
from .source import Source, locate, parse

if TYPE_CHECKING:
    import torch

#: Stream → its projector's name in such a checkpoint.
PROJECTORS = {
    "image": "llama_proj",
    "facemae": "feats_llama_proj1",
    "videomae": "feats_llama_proj2",
    "audio": "feats_llama_proj3",
    "cls": "cls_tk_llama_proj",
}
#: What such a checkpoint has besides: a head that nothing reads, and the towers, which streams have their own weights for.
_BESIDE = ("attention.", "visual_encoder.", "ln_vision.")
_LORA = re.compile(r"llama_model\.base_model\.model\.(?:model\.)?(layers\.\d+\..+\.lora_[AB])(?:\.default)?\.weight")


def read(source: Source | str, streams: Iterable[str]) -> dict[str, dict[str, torch.Tensor]]:
    """`projectors` of these streams (`image.weight`), and `adapters` (`layers.0.self_attn.q_proj.lora_A.default.weight`).

    Projectors of other streams are left out, with a line.

    Raises:
        WeightsError: it lacks a projector of these streams, or holds what no such checkpoint does.
    """
    source = parse(source) if isinstance(source, str) else source
    found = inside.unwrap(state(locate(source)))
    streams = list(streams)
    if unknown := [name for name in streams if name not in PROJECTORS]:
        raise WeightsError(f"{source} has no projector of a stream {unknown[0]}; it has those of {', '.join(PROJECTORS)}.")
    wanted = {f"{PROJECTORS[name]}.{kind}": f"{name}.{kind}" for name in streams for kind in ("weight", "bias")}
    projectors = {place: found[name] for name, place in wanted.items() if name in found}
    adapters = {f"{match[1]}.default.weight": value for name, value in found.items() if (match := _LORA.fullmatch(name))}
    left = [name for name in found if name not in wanted and not _LORA.fullmatch(name)]
    others = tuple(f"{name}." for name in PROJECTORS.values())
    check_coverage(source, wanted, wanted.keys() - found.keys(), left, dropped=(*_BESIDE, *others))
    inside.report(source, left)
    return {"projectors": projectors, "adapters": adapters}


def fill(module: Any, found: Mapping[str, torch.Tensor], source: object) -> None:
    """Put adapters into a module that has places for just these.

    Raises:
        WeightsError: some are missing or too many, or of another rank.
    """
    own = {name: value for name, value in module.named_parameters() if "lora_" in name}
    shaped = [
        f"{name} of shape {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in found and found[name].shape != value.shape
    ]
    if found and not own:
        raise WeightsError(f"{source} holds {len(found)} adapters, and none are asked for; set language.lora.")
    check_coverage(source, own, [*(own.keys() - found.keys()), *shaped], found.keys() - own.keys())
    for name, value in own.items():
        value.data.copy_(found[name])


def digest(found: Mapping[str, torch.Tensor]) -> str:
    """Hash of names, shapes and numbers, whatever their order."""
    hashed = xxhash.xxh3_128()
    for name, value in sorted(found.items()):
        hashed.update(f"{name}{tuple(value.shape)}".encode())
        hashed.update(value.detach().float().cpu().contiguous().numpy().data)
    return hashed.hexdigest()

"""State dicts of the repositories that published MAE and VideoMAE → keys of transformers.

Face-trained checkpoints (`mae_checkpoint-340.pth`, `maeV_399.pth`) come as such single files.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.errors import WeightsError

from . import inside

#: Within a block: theirs → transformers', for what is renamed only.
_MAE = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_VIDEO = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
#: Pre-training and classification parts.
HEADS = ("decoder", "mask_token", "head.", "fc_norm.", "encoder_to_decoder")


def encoder(state: dict[str, Any], *, video: bool, origin: object) -> dict[str, Any]:
    """The encoder's state dict under transformers' keys; heads and decoders are left out by name.

    Raises:
        WeightsError: the file holds no blocks of a vision transformer.
    """
    plain = inside.unwrap(state)
    # VideoMAE's pre-training model is an encoder beside its decoder; training programs put `model.` before all.
    prefix = inside.prefix_of(plain, "patch_embed.proj.weight")
    inside.report(origin, [key for key in plain if not key.startswith(prefix)])
    plain = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
    if not any(key.startswith("blocks.") for key in plain):
        raise WeightsError(f"{origin} holds no transformer blocks; it is no MAE or VideoMAE checkpoint.")
    result: dict[str, Any] = {}
    for key, value in plain.items():
        if key.startswith(HEADS):
            continue
        if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
            result |= _block(int(found[1]), found[2], value, video)
        else:
            result[_OUTSIDE.get(key, key)] = value
    return result


def _block(number: int, rest: str, value: Any, video: bool) -> dict[str, Any]:
    base = f"encoder.layer.{number}." if video else f"layers.{number}."
    attention = base + ("attention.attention.{}" if video else "attention.{}_proj")
    names = [attention.format(name) for name in (("query", "key", "value") if video else "qkv")]
    if rest in ("attn.qkv.weight", "attn.qkv.bias"):
        kind = rest.rpartition(".")[2]
        return {f"{name}.{kind}": part.clone() for name, part in zip(names, value.chunk(3), strict=True)}
    if rest in ("attn.q_bias", "attn.v_bias"):
        return {f"{names[0 if rest == 'attn.q_bias' else 2]}.bias": value}
    part, _, kind = rest.rpartition(".")
    return {f"{base}{(_VIDEO if video else _MAE).get(part, part)}.{kind}": value}


def shape(state: dict[str, Any]) -> dict[str, int]:
    """Configuration read off a converted state dict: width, layers, patch and inner width; heads of 64 as in ViT."""
    projection = state["embeddings.patch_embeddings.projection.weight"]
    layers = 1 + max(int(found[1]) for key in state if (found := re.match(r"(?:encoder\.layer|layers)\.(\d+)\.", key)))
    inner = next(value.shape[0] for key, value in state.items() if key.endswith(("mlp.fc1.weight", "intermediate.dense.weight")))
    width = projection.shape[0]
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": inner,
        "patch_size": projection.shape[-1],
    }

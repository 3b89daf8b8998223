"""Language models in one GGUF file (llama.cpp's format): configuration, tokenizer and weights.

Read here are LLaMA-shaped models with a byte-level BPE tokenizer, such as SmolLM2. The library's own
reader parses a vocabulary string by string through numpy; the header is plain enough to be read in a fifth of a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import WeightsError

from .gguf_header import Header, read_header

if TYPE_CHECKING:
    import torch

SUFFIX = ".gguf"
#: Kinds of tokens: markers that stand for themselves, and words a user added.
_CONTROL, _USER = 3, 4
#: How a tokenizer cuts text before merging, by `tokenizer.ggml.pre`: are digits single?
_DIGITS = {"smollm": True, "gpt-2": False}
#: Names inside a block, theirs and ours.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def config(path: Path) -> dict:
    """What config.json would say.

    Raises:
        WeightsError: see `read_header`; another architecture, or positions stretched in a way not known here.
    """
    header = read_header(path)
    if (kind := header.text("general.architecture")) != "llama":
        raise WeightsError(
            f"{path} is a {kind!r} model; of GGUF files LLaMA-shaped ones are read. Use its folder in the format of transformers."
        )
    if header.fields.get("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in header.tensors:
        raise WeightsError(f"{path} stretches its positions; use its folder in the format of transformers.")
    blocks, said = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}, header.whole("llama.block_count")
    if len(blocks) != said:
        raise WeightsError(f"{path} says {said} blocks and holds {len(blocks)}; fetch it again.")
    heads, width = header.whole("llama.attention.head_count"), header.whole("llama.embedding_length")
    return {
        "model_type": "llama",
        "vocab_size": len(header.each("tokenizer.ggml.tokens", str)),
        "hidden_size": width,
        "intermediate_size": header.whole("llama.feed_forward_length"),
        "num_hidden_layers": said,
        "num_attention_heads": heads,
        "num_key_value_heads": header.whole("llama.attention.head_count_kv", heads),
        "head_dim": header.whole("llama.rope.dimension_count", width // max(1, heads)),
        "max_position_embeddings": header.whole("llama.context_length"),
        "rms_norm_eps": header.number("llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": header.number("llama.rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": _optional(header, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _optional(header, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _optional(header, "tokenizer.ggml.padding_token_id"),
    }


def _optional(header: Header, name: str) -> int | None:
    return header.whole(name) if name in header.fields else None


def tokenizer(path: Path) -> tuple[str, int]:
    """The tokenizer as JSON of the `tokenizers` library, and the most tokens the model takes.

    Raises:
        WeightsError: see `read_header`; a tokenizer that is no byte-level BPE with a known way of cutting text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    header = read_header(path)
    kind, cut = header.text("tokenizer.ggml.model"), header.text("tokenizer.ggml.pre", "unnamed")
    if kind != "gpt2" or cut not in _DIGITS:
        raise WeightsError(
            f"{path} has a tokenizer of kind {kind}/{cut}; of GGUF files gpt2/{' and gpt2/'.join(_DIGITS)} "
            "are read. Use its folder in the format of transformers."
        )
    words, merges = header.each("tokenizer.ggml.tokens", str), header.each("tokenizer.ggml.merges", str)
    try:
        model = models.BPE({word: i for i, word in enumerate(words)}, [tuple(pair.split(" ", 1)) for pair in merges])
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise WeightsError(f"{path} has no legible vocabulary ({' '.join(str(error).split())[:100]}); fetch it again.") from error
    result = Tokenizer(model)
    step = pre_tokenizers.ByteLevel(add_prefix_space=bool(header.fields.get("tokenizer.ggml.add_space_prefix", False)))
    single = [pre_tokenizers.Digits(individual_digits=True)] if _DIGITS[cut] else []
    result.pre_tokenizer = pre_tokenizers.Sequence([*single, step])
    result.decoder = decoders.ByteLevel()
    roles = header.each("tokenizer.ggml.token_type", int)
    if len(roles) != len(words):
        raise WeightsError(f"{path} has {len(words)} tokens and {len(roles)} kinds of them; convert the model again.")
    for word, role in zip(words, roles, strict=True):
        if role in (_CONTROL, _USER):
            result.add_tokens([AddedToken(word, normalized=False, special=role == _CONTROL)])
    if header.fields.get("tokenizer.ggml.add_bos_token"):
        number = header.whole("tokenizer.ggml.bos_token_id")
        if number >= len(words):
            raise WeightsError(f"{path} opens texts with token {number} of {len(words)}; convert the model again.")
        opening = words[number]
        result.post_processor = processors.TemplateProcessing(
            single=f"{opening} $A", pair=f"{opening} $A $B", special_tokens=[(opening, number)]
        )
    return result.to_str(), header.whole("llama.context_length")


def state(path: Path, wanted: Callable[[str], bool] | None = None) -> dict[str, torch.Tensor]:
    """float32 weights, under the names of `LlamaForCausalLM`; a tied output matrix is left out.

    Args:
        wanted: by its name, whether a tensor is; others are not unpacked.

    Raises:
        WeightsError: see `read_header`; a tensor that ends beyond the file, of an unknown quantisation or name, or
            the package `gguf` is not there.
    """
    import torch

    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
    except ImportError as error:
        raise WeightsError(f"{path} is quantised; run `pip install gguf` to read it.") from error

    header = read_header(path)
    heads = header.whole("llama.attention.head_count")
    groups = {"attn_q": heads, "attn_k": header.whole("llama.attention.head_count_kv", heads)}
    data = np.memmap(path, np.uint8, "r")
    result = {}
    for name, place in header.tensors.items():
        inside = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        known = f"model.layers.{inside[1]}.{_BLOCK.get(inside[2], inside[2])}.weight" if inside else _OUTSIDE.get(name, name)
        if wanted is not None and not wanted(known):
            continue
        try:
            kind = GGMLQuantizationType(place.kind)
            block, size = GGML_QUANT_SIZES[kind]
            length = math.prod(place.shape) // block * size
            raw = data[place.start : place.start + length].reshape(-1, place.shape[-1] // block * size)
            values = dequantize(raw, kind).reshape(place.shape)
        except (ValueError, KeyError, NotImplementedError, ZeroDivisionError, MemoryError, OverflowError) as error:
            raise WeightsError(
                f"{path}: {name} cannot be read ({' '.join(str(error).split())[:100]}); "
                "fetch it again, or another quantisation of it."
            ) from error
        if inside and inside[2] in groups:
            # llama.cpp keeps the two halves of each head's rotation side by side.
            try:
                values = values.reshape(groups[inside[2]], -1, 2, place.shape[1]).swapaxes(1, 2).reshape(place.shape)
            except (ValueError, IndexError) as error:
                raise WeightsError(
                    f"{path}: {name} does not divide into {groups[inside[2]]} heads; convert the model again."
                ) from error
        result[known] = torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
    return result

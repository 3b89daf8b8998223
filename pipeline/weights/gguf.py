"""Language models in one GGUF file (llama.cpp's format): configuration, tokenizer and weights.

Read here are LLaMA-shaped models with a byte-level BPE tokenizer, such as SmolLM2. The library's own
reader parses a vocabulary string by string through numpy, which takes half a minute per start; the header is
plain enough to be read in a fifth of a second. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import WeightsError

if TYPE_CHECKING:
    import torch

SUFFIX = ".gguf"
#: Kinds of values in the header, by their number, as `struct` calls them; 8 is text, 9 a list.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
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


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: shape (rows first), number of its quantisation, bytes from the start of the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class Header:
    """Everything but the weights.

    Attributes:
        path: the file.
        fields: metadata by name.
        tensors: places of the weights by their name in the file.
    """

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Any:
        """One field.

        Raises:
            WeightsError: the file does not have it.
        """
        if name not in self.fields:
            raise WeightsError(f"{self.path} does not say {name}; it is no complete GGUF model, convert it again.")
        return self.fields[name]


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def numbers(self, kinds: str) -> tuple:
        values = struct.unpack_from(f"<{kinds}", self.data, self.at)
        self.at += struct.calcsize(f"<{kinds}")
        return values

    def text(self) -> str:
        (length,) = self.numbers("Q")
        self.at += length
        if self.at > len(self.data):
            raise ValueError("a text ends beyond the file")
        return self.data[self.at - length : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            kind, length = self.numbers("IQ")
            if length > len(self.data):
                raise ValueError("a list is longer than the file")
            return [*self.numbers(f"{length}{_SCALARS[kind]}")] if kind in _SCALARS else [self.value(kind) for _ in range(length)]
        return self.numbers(_SCALARS[kind])[0]


def read(path: Path) -> Header:
    """The header of a file.

    Raises:
        WeightsError: it is not there, not GGUF (versions 2 and 3, little-endian), or cut off.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(data)
            magic, version, count, pairs = cursor.numbers("4sIQQ")
            if magic != b"GGUF" or version not in (2, 3):
                raise ValueError("no GGUF of version 2 or 3")
            fields = {}
            for _ in range(pairs):
                name, kind = cursor.text(), cursor.numbers("I")[0]
                fields[name] = cursor.value(kind)
            places = []
            for _ in range(count):
                name, sides = cursor.text(), cursor.numbers("I")[0]
                *shape, kind, start = cursor.numbers(f"{sides}QIQ")
                places.append((name, tuple(reversed(shape)), kind, start))
            step = int(fields.get("general.alignment", 32))
            first = -(-cursor.at // step) * step
    except (OSError, ValueError, struct.error, KeyError, OverflowError, MemoryError, ZeroDivisionError) as error:
        raise WeightsError(f"{path} cannot be read as GGUF ({type(error).__name__}: {error}); fetch it again.") from error
    return Header(path, fields, {name: Tensor(shape, kind, first + start) for name, shape, kind, start in places})


def config(path: Path) -> dict:
    """What config.json would say.

    Raises:
        WeightsError: see `read`; another architecture, or positions stretched in a way not known here.
    """
    header = read(path)
    if (kind := header["general.architecture"]) != "llama":
        raise WeightsError(
            f"{path} is a {kind!r} model; of GGUF files LLaMA-shaped ones are read. Use its folder in the format of transformers."
        )
    if header.fields.get("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in header.tensors:
        raise WeightsError(f"{path} stretches its positions; use its folder in the format of transformers.")
    blocks = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    if len(blocks) != header["llama.block_count"]:
        raise WeightsError(f"{path} says {header['llama.block_count']} blocks and holds {len(blocks)}; fetch it again.")
    heads, width = header["llama.attention.head_count"], header["llama.embedding_length"]
    return {
        "model_type": "llama",
        "vocab_size": len(header["tokenizer.ggml.tokens"]),
        "hidden_size": width,
        "intermediate_size": header["llama.feed_forward_length"],
        "num_hidden_layers": header["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": header.fields.get("llama.attention.head_count_kv", heads),
        "head_dim": header.fields.get("llama.rope.dimension_count", width // max(1, heads)),
        "max_position_embeddings": header["llama.context_length"],
        "rms_norm_eps": header["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": header.fields.get("llama.rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": header.fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": header.fields.get("tokenizer.ggml.padding_token_id"),
    }


def tokenizer(path: Path) -> tuple[str, int]:
    """The tokenizer as JSON of the `tokenizers` library, and the most tokens the model takes.

    Raises:
        WeightsError: see `read`; a tokenizer that is no byte-level BPE with a known way of cutting text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    header = read(path)
    kind, cut = header["tokenizer.ggml.model"], header.fields.get("tokenizer.ggml.pre", "unnamed")
    if kind != "gpt2" or cut not in _DIGITS:
        raise WeightsError(
            f"{path} has a tokenizer of kind {kind}/{cut}; of GGUF files gpt2/{' and gpt2/'.join(_DIGITS)} "
            "are read. Use its folder in the format of transformers."
        )
    words, merges = header["tokenizer.ggml.tokens"], header["tokenizer.ggml.merges"]
    try:
        model = models.BPE({word: i for i, word in enumerate(words)}, [tuple(pair.split(" ", 1)) for pair in merges])
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise WeightsError(f"{path} has no legible vocabulary ({' '.join(str(error).split())[:100]}); fetch it again.") from error
    result = Tokenizer(model)
    step = pre_tokenizers.ByteLevel(add_prefix_space=bool(header.fields.get("tokenizer.ggml.add_space_prefix", False)))
    single = [pre_tokenizers.Digits(individual_digits=True)] if _DIGITS[cut] else []
    result.pre_tokenizer = pre_tokenizers.Sequence([*single, step])
    result.decoder = decoders.ByteLevel()
    for word, role in zip(words, header["tokenizer.ggml.token_type"], strict=False):
        if role in (_CONTROL, _USER):
            result.add_tokens([AddedToken(word, normalized=False, special=role == _CONTROL)])
    if header.fields.get("tokenizer.ggml.add_bos_token"):
        number = header["tokenizer.ggml.bos_token_id"]
        opening = words[number]
        result.post_processor = processors.TemplateProcessing(
            single=f"{opening} $A", pair=f"{opening} $A $B", special_tokens=[(opening, number)]
        )
    return result.to_str(), int(header["llama.context_length"])


def state(path: Path) -> dict[str, torch.Tensor]:
    """float32 weights, under the names of `LlamaForCausalLM`; a tied output matrix is left out.

    Raises:
        WeightsError: see `read`; a tensor that ends beyond the file, of an unknown quantisation or name, or
            the package `gguf` is not there.
    """
    import torch

    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
    except ImportError as error:
        raise WeightsError(f"{path} is quantised; run `pip install gguf` to read it.") from error

    header = read(path)
    heads = header["llama.attention.head_count"]
    groups = {"attn_q": heads, "attn_k": header.fields.get("llama.attention.head_count_kv", heads)}
    data = np.memmap(path, np.uint8, "r")
    result = {}
    for name, place in header.tensors.items():
        try:
            kind = GGMLQuantizationType(place.kind)
            block, size = GGML_QUANT_SIZES[kind]
            length = math.prod(place.shape) // block * size
            raw = data[place.start : place.start + length].reshape(-1, place.shape[-1] // block * size)
            values = dequantize(raw, kind).reshape(place.shape)
        except (ValueError, KeyError, NotImplementedError, ZeroDivisionError) as error:
            raise WeightsError(
                f"{path}: {name} cannot be read ({' '.join(str(error).split())[:100]}); "
                "fetch it again, or another quantisation of it."
            ) from error
        inside = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        if inside and inside[2] in groups:
            # llama.cpp keeps the two halves of each head's rotation side by side.
            values = values.reshape(groups[inside[2]], -1, 2, place.shape[1]).swapaxes(1, 2).reshape(place.shape)
        known = f"model.layers.{inside[1]}.{_BLOCK.get(inside[2], inside[2])}.weight" if inside else _OUTSIDE.get(name, name)
        result[known] = torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
    return result

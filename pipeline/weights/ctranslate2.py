"""Whisper as CTranslate2 keeps it: one `model.bin` (half precision), and a config.json that names no architecture.

The layout is that of CTranslate2's `python/ctranslate2/specs/model_spec.py` (binary version 6): a version, the name of
the kind of model and its revision, then a name, a shape, a type and the bytes of each variable; numbers are little-endian.
The three matrices of an attention lie in one, and attention keys have no bias of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import WeightsError

if TYPE_CHECKING:
    import torch

FILE = "model.bin"
_VERSION, _KIND = 6, "WhisperSpec"
#: CTranslate2's numbers of types. The others are quantised.
_TYPES = {0: "<f4", 4: "<f2"}
#: Settings are kept as variables without a shape.
_SCALARS = {1: "i1", 2: "<i2", 3: "<i4"} | _TYPES
#: Settings that have a shape: which heads follow the sound.
_SETTINGS = ("/alignment_heads", "/alignment_layer")
_PART = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
#: Inside a layer, theirs and transformers'; `self_attention` and `attention` (to the encoder) are treated apart.
_LAYER = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
_ATTENTION = {
    "self_attention/linear_0": ("self_attn", ("q_proj", "k_proj", "v_proj")),
    "self_attention/linear_1": ("self_attn", ("out_proj",)),
    "attention/linear_0": ("encoder_attn", ("q_proj",)),
    "attention/linear_1": ("encoder_attn", ("k_proj", "v_proj")),
    "attention/linear_2": ("encoder_attn", ("out_proj",)),
}
_OUTSIDE = {
    "encoder/conv1/weight": "encoder.conv1.weight",
    "encoder/conv1/bias": "encoder.conv1.bias",
    "encoder/conv2/weight": "encoder.conv2.weight",
    "encoder/conv2/bias": "encoder.conv2.bias",
    "encoder/position_encodings/encodings": "encoder.embed_positions.weight",
    "encoder/layer_norm/gamma": "encoder.layer_norm.weight",
    "encoder/layer_norm/beta": "encoder.layer_norm.bias",
    "decoder/embeddings/weight": "decoder.embed_tokens.weight",
    "decoder/position_encodings/encodings": "decoder.embed_positions.weight",
    "decoder/layer_norm/gamma": "decoder.layer_norm.weight",
    "decoder/layer_norm/beta": "decoder.layer_norm.bias",
}


@dataclass(frozen=True)
class Variable:
    """A named array in the file: its shape, its number of a type, its first byte and its length in bytes."""

    shape: tuple[int, ...]
    kind: int
    start: int
    length: int


def is_folder(path: Path) -> bool:
    """Whether CTranslate2 wrote the folder: a `model.bin`, which opens with the version and a name of a kind of model."""
    file = path / FILE
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return re.fullmatch(rb".\0\0\0.\0\w+Spec\0.*", stream.read(64), re.DOTALL) is not None


@lru_cache(maxsize=2)
def read_variables(file: Path) -> dict[str, Variable]:
    """Names and places of the variables; the file is not read further.

    Raises:
        WeightsError: another version or kind of model, or a file that is cut short.
    """
    data = np.memmap(file, np.uint8, "r")
    at = 0

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise WeightsError(f"{file} ends in the middle of its names; it is half a download, fetch it again.")
        return int.from_bytes(data[at - size : at].tobytes(), "little")

    def name() -> str:
        nonlocal at
        length = number(2)
        at += length
        return data[at - length : at].tobytes().rstrip(b"\0").decode(errors="replace")

    version, kind = number(4), name()
    if (version, kind) != (_VERSION, _KIND):
        raise WeightsError(
            f"{file} is a {kind} of version {version}; of CTranslate2's files a {_KIND} of version {_VERSION} is read."
        )
    number(4)  # the revision of the kind of model
    result = {}
    for _ in range(number(4)):
        key = name()
        shape = tuple(number(4) for _ in range(number(1)))
        kind_of_type, length = number(1), number(4)
        found = Variable(shape, kind_of_type, at, length)
        at += length
        if at > len(data):
            raise WeightsError(f"{file} ends before the last byte of {key}; it is half a download, fetch it again.")
        if found.kind in _TYPES and math.prod(shape) * np.dtype(_TYPES[found.kind]).itemsize != found.length:
            raise WeightsError(f"{file}: {key} of shape {shape} has {found.length} bytes; fetch it again.")
        result[key] = found
    return result


def config(path: Path) -> dict:
    """What config.json of transformers would say, read off the shapes.

    Raises:
        WeightsError: see `read_variables`; or a part of Whisper is not there.
    """
    file = path / FILE
    variables = read_variables(file)
    try:
        width, bins, _ = variables["encoder/conv1/weight"].shape
        return {
            "model_type": "whisper",
            "d_model": width,
            "num_mel_bins": bins,
            "vocab_size": variables["decoder/embeddings/weight"].shape[0],
            "max_source_positions": variables["encoder/position_encodings/encodings"].shape[0],
            "max_target_positions": variables["decoder/position_encodings/encodings"].shape[0],
            "encoder_layers": _count(variables, "encoder"),
            "decoder_layers": _count(variables, "decoder"),
            "encoder_attention_heads": _setting(file, variables["encoder/num_heads"]),
            "decoder_attention_heads": _setting(file, variables["decoder/num_heads"]),
            "encoder_ffn_dim": variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
            "pad_token_id": None,  # not told, and only batches of texts need it
            "decoder_ffn_dim": variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        }
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{file} lacks a part of Whisper ({error}); fetch it again.") from error


def front(path: Path) -> dict:
    """What preprocessor_config.json would say: every Whisper takes windows of 25 ms, 10 ms apart (Radford et al. 2022, 2.2)."""
    said = config(path)
    bins, frames = said["num_mel_bins"], 2 * said["max_source_positions"]
    return {"feature_size": bins, "n_fft": 400, "hop_length": 160, "nb_max_frames": frames, "sampling_rate": 16000}


def state(path: Path) -> dict[str, torch.Tensor]:
    """float32 weights under the names of `WhisperForConditionalGeneration`; the tied output matrix is left out.

    Raises:
        WeightsError: see `read_variables`; or quantised weights.
    """
    import torch

    file = path / FILE
    data = np.memmap(file, np.uint8, "r")
    result: dict[str, torch.Tensor] = {}
    for name, place in read_variables(file).items():
        if not place.shape or name.endswith(_SETTINGS):
            continue
        if place.kind not in _TYPES:
            raise WeightsError(f"{file} is quantised ({name}); fetch it in float16 or float32.")
        raw = np.frombuffer(data[place.start : place.start + place.length], _TYPES[place.kind])
        values = torch.from_numpy(raw.astype(np.float32).reshape(place.shape))
        result.update((f"model.{key}", value) for key, value in _rename(name, values))
    return result


def _rename(name: str, values: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if name in _OUTSIDE:
        yield _OUTSIDE[name], values
        return
    found = re.fullmatch(r"(encoder|decoder)/layer_(\d+)/(\w+/\w+)/(\w+)", name)
    if not found or found[4] not in _PART or found[3] not in _LAYER | _ATTENTION:
        yield name, values  # strict loading names it
        return
    layer, part = f"{found[1]}.layers.{found[2]}", _PART[found[4]]
    if found[3] in _LAYER:
        yield f"{layer}.{_LAYER[found[3]]}.{part}", values
        return
    attention, projections = _ATTENTION[found[3]]
    for projection, piece in zip(projections, values.chunk(len(projections)), strict=True):
        if (projection, part) != ("k_proj", "bias"):
            yield f"{layer}.{attention}.{projection}.{part}", piece.clone()


def _count(variables: dict[str, Variable], tower: str) -> int:
    return len({found[1] for key in variables if (found := re.match(rf"{tower}/layer_(\d+)/", key))})


def _setting(file: Path, place: Variable) -> int:
    data = np.memmap(file, np.uint8, "r")
    return int(np.frombuffer(data[place.start : place.start + place.length], _SCALARS[place.kind])[0])

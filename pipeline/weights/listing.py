"""Which files of a folder are the weights, and whether all of them are there."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import WeightsError

from . import intact

#: Weight files by preference; pickles last.
SAFE = ("model*.safetensors", "open_clip_model.safetensors", "*.safetensors")
PICKLED = ("pytorch_model*.bin", "open_clip_pytorch_model.bin", "*.bin", "*.pt", "*.pth")
#: How transformers calls a model's one file (of several, an index beside them names each), and other names.
_USUAL = (("model.safetensors", SAFE), ("pytorch_model.bin", PICKLED))


def files(path: Path, first: Sequence[str] = ()) -> list[Path]:
    """The weight files at `path` (a folder or one file), safetensors before pickles, sorted.

    Args:
        first: file patterns of the family's own, preferred to the usual names.

    Raises:
        WeightsError: there is none, or one of several is missing.

    >>> for name in ("weights.bin", "model.safetensors"):
    ...     Path(name).touch()
    >>> files(Path("."))[0].name
    'model.safetensors'
    """
    if path.is_file():
        return [path]
    for pattern in first:
        if found := sorted(path.glob(pattern)):
            return found
    for whole, patterns in _USUAL:
        if (path / whole).is_file():
            return [path / whole]
        if (index := path / f"{whole}.index.json").is_file():
            return _shards(index)
        for pattern in patterns:
            if found := sorted(path.glob(pattern)):
                return _counted(found)
    raise WeightsError(
        f"{path} holds no weight file ({', '.join(SAFE[:1] + PICKLED[:1])}); save the model there in its library's own format."
    )


def _shards(index: Path) -> list[Path]:
    """The files an index names.

    Raises:
        WeightsError: it is no index, or one of them is not there.
    """
    intact.check(index)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        found = [index.parent / Path(name).name for name in names]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} names no files; fetch it again.") from error
    if absent := [file.name for file in found if not file.is_file()]:
        raise WeightsError(f"{index} names {len(found)} files and {absent[0]} is not there; fetch it too.")
    return found


def _counted(found: list[Path]) -> list[Path]:
    """Files without an index: when they say how many they are, all must be there."""
    for file in found:
        if said := re.search(r"-of-(\d+)\.\w+$", file.name):
            parts = [part for part in found if part.name.endswith(said[0])]
            if len(parts) < int(said[1]):
                raise WeightsError(f"{file} is one of {int(said[1])} files and {len(parts)} are there; fetch the others too.")
            return parts
    return found

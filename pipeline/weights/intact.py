"""Whether a fetched file is whole: what is often found in place of a weight file, told from its first and last bytes."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

from pipeline.errors import WeightsError

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
#: Endings of files that `torch.save` wrote.
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def check(file: Path) -> None:
    """Refuse what is no whole file: a git-lfs pointer, a web page, nothing at all, the first half of a download.

    Cheap: of weights only the header is read.

    Raises:
        WeightsError: says which, and how to get the file.
    """
    try:
        with open(file, "rb") as stream:
            head, size = stream.read(200), file.stat().st_size
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error.strerror}).") from error
    if head.startswith(_POINTER):
        raise WeightsError(f"{file} is a git-lfs pointer, not the file it stands for; run `git lfs pull` in its folder.")
    if not head:
        raise WeightsError(f"{file} is empty; fetch it again.")
    if head.lstrip().lower().startswith(_PAGES):
        raise WeightsError(f"{file} is a web page that was saved under this name; fetch the file itself.")
    suffix = file.suffix.lower()
    if suffix == ".safetensors":
        _check_safetensors(file, size)
    if (suffix in PICKLED or suffix == ".npz") and head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(file):
        raise WeightsError(f"{file} is half a download: {size} bytes, and the end of the archive is not there; fetch it again.")


def _check_safetensors(file: Path, size: int) -> None:
    """Layout: https://huggingface.co/docs/safetensors: length of the header, header, tensors."""
    with open(file, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if size < 8 or (8 + length > size and stream.read(1) == b"{"):
            raise WeightsError(
                f"{file} is half a download: its header says {8 + length} bytes and {size} are there; fetch it again."
            )
        if 8 + length > size:
            raise WeightsError(f"{file} cannot be read as weights (it is no safetensors file); fetch it again.")
        stream.seek(8)
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            wanted = 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(f"{file} cannot be read as weights (its header is damaged); fetch it again.") from error
    if wanted > size:
        raise WeightsError(f"{file} is half a download: {size} of {wanted} bytes; fetch it again.")

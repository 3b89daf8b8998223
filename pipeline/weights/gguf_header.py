"""The header of a GGUF file: metadata, and where the weights lie. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import WeightsError

from . import intact

#: Kinds of values in the header, by their number, as `struct` calls them; 8 is text, 9 a list.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
#: Lists in lists that are followed.
_DEEPEST = 16


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

    def number(self, name: str, otherwise: float | None = None) -> Any:
        """A number that is not negative; `otherwise` where the file does not say it.

        Raises:
            WeightsError: it is something else, or absent without `otherwise`.
        """
        value = self._ask(name, otherwise)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**53:
            raise self._strange(name, "a number")
        return value

    def whole(self, name: str, otherwise: int | None = None) -> int:
        """A whole number; as `number`."""
        if isinstance(value := self.number(name, otherwise), int):
            return value
        raise self._strange(name, "a whole number")

    def text(self, name: str, otherwise: str | None = None) -> str:
        """A text; as `number`."""
        if isinstance(value := self._ask(name, otherwise), str):
            return value
        raise self._strange(name, "a text")

    def each(self, name: str, kind: type) -> list:
        """A flat list of `kind`; as `number`."""
        value = self._ask(name, None)
        if isinstance(value, list) and all(isinstance(item, kind) for item in value):
            return value
        raise self._strange(name, f"a list of {kind.__name__}")

    def _ask(self, name: str, otherwise: Any) -> Any:
        if (value := self.fields.get(name, otherwise)) is None:
            raise WeightsError(f"{self.path} does not say {name}; it is no complete GGUF model, convert it again.")
        return value

    def _strange(self, name: str, kind: str) -> WeightsError:
        return WeightsError(f"{self.path}: {name} is not {kind}; convert the model again.")


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

    def value(self, kind: int, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"lists lie more than {_DEEPEST} deep in each other")
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            kind, length = self.numbers("IQ")
            if length > len(self.data):
                raise ValueError("a list is longer than the file")
            return (
                [*self.numbers(f"{length}{_SCALARS[kind]}")]
                if kind in _SCALARS
                else [self.value(kind, depth + 1) for _ in range(length)]
            )
        return self.numbers(_SCALARS[kind])[0]


def read_header(path: Path) -> Header:
    """The header of a file.

    Raises:
        WeightsError: it is not there, not GGUF (versions 2 and 3, little-endian), or cut off.
    """
    intact.check(path)
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
            step = fields.get("general.alignment", 32)
            if not isinstance(step, int) or step < 1:
                raise ValueError("its alignment is no number")
            first = -(-cursor.at // step) * step
            # No quantisation takes less than a bit a weight.
            if any(not shape or first + start + math.prod(shape) // 8 > len(data) for _, shape, _, start in places):
                raise ValueError("it ends before its weights do: half a download")
    except (OSError, ValueError, TypeError, struct.error, KeyError, OverflowError, MemoryError) as error:
        raise WeightsError(f"{path} cannot be read as GGUF ({type(error).__name__}: {error}); fetch it again.") from error
    return Header(path, fields, {name: Tensor(shape, kind, first + start) for name, shape, kind, start in places})

"""Reading somebody's pickle without running it: arrays, containers, text and numbers, nothing else.

What a pickle names is never the real function: each name stands for a function of this file, which looks at what it is
given first. A header may claim any size; memory is asked for only when the bytes are there.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import WeightsError
from pipeline.weights import intact

#: Stands for `numpy.ndarray`, which numpy's pickles name and which is never called.
_NDARRAY = "numpy.ndarray"


class _Kind:
    """A dtype: its letter and size, then its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, spec: Any, *_: Any) -> None:
        if not isinstance(spec, str) or not re.fullmatch(r"[<>|=]?(?:[biufc]\d{1,2}|[SU]\d{1,7}|O8?|\?)", spec):
            raise pickle.UnpicklingError(f"it holds values of kind {spec!r}"[:80])
        self.dtype = np.dtype(spec)

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it holds a damaged kind of values")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array that is filled only when its size is that of its bytes."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        _expect_size(shape, kind, data)
        whole: Any = (1, shape, kind.dtype, bool(fortran), data)
        super().__setstate__(whole)


def _expect_size(shape: Any, kind: Any, data: Any) -> None:
    if not isinstance(kind, _Kind) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise pickle.UnpicklingError("it holds a damaged array")
    there = len(data) if kind.dtype.hasobject == isinstance(data, list) else -1
    wanted = math.prod(shape) * (1 if kind.dtype.hasobject else kind.dtype.itemsize)
    if there != wanted:
        raise pickle.UnpicklingError(f"an array claims {wanted} bytes or values and {max(there, 0)} are there")


def _empty(subtype: Any, shape: Any, _: Any) -> _Array:
    if subtype != _NDARRAY or tuple(shape) != (0,):
        raise pickle.UnpicklingError("it holds an array that numpy did not write")
    return np.empty(0).view(_Array)


def _scalar(kind: Any, data: Any = None) -> Any:
    if isinstance(data, str):
        data = data.encode("latin1")
    _expect_size((), kind, data)
    return np.frombuffer(data, kind.dtype)[0]


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    _expect_size(shape, kind, data)
    return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}"[:80])
    return text.encode(encoding)


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(_encode(data, encoding) if isinstance(data, str) else bytes(memoryview(data)))


def _no_bytes() -> bytes:
    """How protocol 2 spells b""; called with nothing."""
    return b""


class _Name:
    """What a pickle gets for a name: it can be called, and nothing about it can be changed."""

    __slots__ = ("_meant",)
    _meant: Callable

    def __init__(self, meant: Callable) -> None:
        object.__setattr__(self, "_meant", meant)

    def __call__(self, *args: Any) -> Any:
        return self._meant(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("it wants to change what it names")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it wants to change what it names")


#: What a pickle may name. Everything it needs to rebuild arrays and plain containers, and no code.
ALLOWED: dict[tuple[str, str], Any] = {
    ("builtins", "set"): _Name(set),
    ("builtins", "frozenset"): _Name(frozenset),
    ("builtins", "complex"): _Name(complex),
    ("builtins", "bytes"): _Name(_no_bytes),
    ("builtins", "bytearray"): _Name(_bytearray),
    ("collections", "OrderedDict"): _Name(collections.OrderedDict),
    ("_codecs", "encode"): _Name(_encode),  # how protocol 2 spells bytes
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Name(_Kind),
} | {
    (f"numpy.{core}.{module}", name): _Name(meant)
    for core in ("core", "_core")
    for module, name, meant in (
        ("multiarray", "_reconstruct", _empty),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _frombuffer),
    )
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return ALLOWED[module, name]


def load(path: str | Path) -> Any:
    """The object in a pickle of numpy arrays, dicts, lists, tuples, sets, text and numbers.

    Raises:
        WeightsError: it is no whole pickle, it needs any other class or function, or it claims more than it holds.
    """
    intact.check(Path(path))
    data = Path(path).read_bytes()
    try:
        _expect_modest(data)
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        ImportError,
        UnicodeDecodeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise WeightsError(
            f"{path} is not read: {' '.join(str(error).split())[:160] or type(error).__name__}. Only "
            "arrays, dicts, lists, text and numbers may be in it; save the features as .npz or .h5."
        ) from error


def _expect_modest(data: bytes) -> None:
    """Refuse steps that make the reader ask for memory beyond the file: texts longer than it, places it cannot have."""
    for step, argument, _ in pickletools.genops(data):
        if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError("it claims more values than it can hold")

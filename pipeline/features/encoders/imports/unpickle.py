"""Reading somebody's pickle without running it: arrays, containers, text and numbers, nothing else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from pipeline.errors import WeightsError

#: What a pickle may name. Everything it needs to rebuild arrays and plain containers, and no code.
ALLOWED = {
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "complex"),
    ("builtins", "bytearray"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),  # how protocol 2 spells bytes
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
} | {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        # Pickles of numpy 1 name a module that numpy 2 has renamed.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def load(path: str | Path) -> Any:
    """The object in a pickle of numpy arrays, dicts, lists, tuples, sets, text and numbers.

    Raises:
        WeightsError: it is no pickle, or it needs any other class or function.
    """
    try:
        return _Unpickler(io.BytesIO(Path(path).read_bytes()), encoding="latin1").load()
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
    ) as error:
        raise WeightsError(
            f"{path} is not read: {' '.join(str(error).split())[:160] or type(error).__name__}. Only "
            "arrays, dicts, lists, text and numbers may be in it; save the features as .npz or .h5."
        ) from error

"""Corpora: one adapter module each, imported when it is asked for.

`get("ravdess")` gives the adapter; `names()` lists them. The module of corpus `x` is `x.py` and exports `ADAPTER`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from ...errors import CorpusError, one_of
from .adapter import Adapter, Tables

__all__ = ["ADAPTERS", "Adapter", "Tables", "get", "names"]

_NAMES = ("demo", "meld", "ravdess")


class _Adapters(Mapping[str, Adapter]):
    """Adapters by name; looking one up imports its module and nothing else."""

    def __getitem__(self, name: str) -> Adapter:
        if name not in _NAMES:
            raise KeyError(name)
        return import_module(f".{name}", __name__).ADAPTER

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


ADAPTERS: Mapping[str, Adapter] = _Adapters()


def names() -> tuple[str, ...]:
    """Names of all corpora, sorted."""
    return tuple(sorted(_NAMES))


def get(name: str) -> Adapter:
    """The adapter of that name.

    Raises:
        CorpusError: there is none; the line lists those there are.
    """
    if name not in ADAPTERS:
        raise one_of("corpus", name, _NAMES, CorpusError)
    return ADAPTERS[name]

"""Corpora: adapters by name, imported when one is asked for. `get("ravdess")` gives one, `names()` lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from pipeline.errors import CorpusError, one_of

from .adapter import Adapter, Tables

__all__ = ["ADAPTERS", "Adapter", "Tables", "get", "names"]

#: Corpus → (module, what it exports).
_PLACES = {
    "afew_va": ("afew_va", "ADAPTER"),
    "ch_sims": ("sentiment", "CH_SIMS"),
    "crema_d": ("acted", "CREMA_D"),
    "demo": ("demo", "ADAPTER"),
    "emo_db": ("acted", "EMO_DB"),
    "generic": ("generic", "ADAPTER"),
    "iemocap": ("iemocap", "ADAPTER"),
    "meld": ("meld", "ADAPTER"),
    "mer2023": ("mer", "MER2023"),
    "merr": ("mer", "MERR"),
    "mosei": ("sentiment", "MOSEI"),
    "mosi": ("sentiment", "MOSI"),
    "msp_improv": ("msp", "IMPROV"),
    "msp_podcast": ("msp", "PODCAST"),
    "ravdess": ("ravdess", "ADAPTER"),
}


class _Adapters(Mapping[str, Adapter]):
    """Adapters by name; looking one up imports its module and nothing else."""

    def __getitem__(self, name: str) -> Adapter:
        module, attribute = _PLACES[name]
        return getattr(import_module(f".{module}", __name__), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


ADAPTERS: Mapping[str, Adapter] = _Adapters()


def names() -> tuple[str, ...]:
    """Names of all corpora, sorted."""
    return tuple(sorted(_PLACES))


def get(name: str) -> Adapter:
    """The adapter of that name.

    Raises:
        CorpusError: there is none; the line lists those there are.
    """
    if name not in _PLACES:
        raise one_of("corpus", name, _PLACES, CorpusError)
    return ADAPTERS[name]

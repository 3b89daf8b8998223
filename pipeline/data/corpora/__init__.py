"""Corpora: one file each, found by its name. `find_adapter("ravdess")` gives the class, `names()` lists them."""

from __future__ import annotations

from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus
from pipeline.parts import Parts

from .adapter import Adapter, Tables

__all__ = ["CORPORA", "Adapter", "Tables", "find_adapter", "names", "open_corpus"]

CORPORA = Parts[Adapter]("pipeline.data.corpora", Adapter, "corpus")


def names() -> tuple[str, ...]:
    """Names of all corpora, sorted."""
    return tuple(CORPORA)


def find_adapter(name: str) -> type[Adapter]:
    """The adapter of that name.

    Raises:
        CorpusError: there is none; the line lists those there are.
    """
    try:
        return CORPORA.find(name)
    except ParamsError as error:
        raise CorpusError(str(error)) from error


def open_corpus(corpus: Corpus, where: str = "corpus.options") -> Adapter:
    """The adapter of `corpus`, its options checked.

    Args:
        where: key that the options stand under, for errors.

    Raises:
        CorpusError: there is no such corpus.
        ParamsError: an option is not known, or a value it cannot be.
    """
    return find_adapter(corpus.name)(corpus, where)

"""Stage `corpus`: generate the demo corpus, or note where a real one is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.errors import CorpusError, one_of
from pipeline.params import Corpus, Params

from .corpora import CORPORA, find_adapter, open_corpus


def prepare_corpus(params: Params, out: str | Path = "data/corpus") -> None:
    """Fill `out`.

    Raises:
        CorpusError: the folder of a real corpus is not there; the line says where it is expected.
    """
    open_corpus(params.corpus).prepare(Path(out))


def generate_corpus(name: str, out: str | Path, options: Iterable[str] = ()) -> None:
    """Write a generated corpus into `out`.

    Args:
        options: `KEY=VALUE` of `corpus.options`.

    Raises:
        CorpusError: no corpus of that name is generated, an option has no value, or `out` holds other files.
        ParamsError: an option is not known, or a value it cannot be.
    """
    if not find_adapter(name).generated:
        made = [known for known in CORPORA if find_adapter(known).generated]
        raise one_of("generated corpus", name, made, CorpusError)
    values = {}
    for option in options:
        key, at, value = option.partition("=")
        if not at:
            raise CorpusError(f"{option!r} is no option; write KEY=VALUE, e.g. seed=1.")
        values[key] = YAML(typ="safe", pure=True).load(value)
    open_corpus(Corpus(name=name, root=str(out), options=values)).prepare(Path(out))

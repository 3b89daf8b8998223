"""Stage `corpus`: generate the demo corpus, or note where a real one is."""

from __future__ import annotations

from pathlib import Path

from pipeline.params import Params

from .corpora import open_corpus


def prepare_corpus(params: Params, out: str | Path = "data/corpus") -> None:
    """Fill `out`.

    Raises:
        CorpusError: the folder of a real corpus is not there; the line says where it is expected.
    """
    open_corpus(params.corpus).prepare(Path(out))

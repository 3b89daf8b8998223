"""Stage `corpus`: generate the demo corpus, or note where a real one is."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import CorpusError
from pipeline.params import Params
from pipeline.storage.atomic import write_json

from . import corpora


def prepare(params: Params, out: str | Path = "data/corpus") -> None:
    """Fill `out`.

    Raises:
        CorpusError: the folder of a real corpus is not there; the line says where it is expected.
    """
    adapter, out = corpora.get(params.corpus.name), Path(out)
    if adapter.prepare:
        adapter.prepare(params.corpus, out)
        return
    if not Path(params.corpus.root).is_dir():
        raise CorpusError(
            f"corpus.root {params.corpus.root} is not a folder. Put {adapter.title} there ({adapter.homepage}), "
            "or say where it is with -S corpus.root=FOLDER."
        )
    write_json(out / "source.json", {"corpus": adapter.name, "title": adapter.title, "licence": adapter.licence})

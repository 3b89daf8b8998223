"""Stage `link`: is the corpus there?"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import CorpusError
from pipeline.params import Params
from pipeline.storage.atomic import write_text


def find_corpus(params: Params, out: str | Path = "data/link.txt") -> None:
    """Note in `out` that the corpus is where `corpus.root` says.

    DVC neither keeps this note nor takes it along, so that wherever it works anew, the corpus is looked for before anything
    that was made of it is removed.

    Raises:
        CorpusError: it is not there.
    """
    root = params.corpus.root
    if not Path(root).is_dir():
        raise CorpusError(
            f"corpus.root {root} is not a folder. Put the corpus there, say where it is (-S corpus.root=FOLDER), or go on "
            "with the features that were pulled: `dvc exp run --allow-missing`, `dvc repro --allow-missing`."
        )
    write_text(out, f"{root}\n")

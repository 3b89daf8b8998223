"""What a corpus adapter is: a page of facts, options, and how the folder is read."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from pipeline.errors import CorpusError
from pipeline.params import Corpus, Group
from pipeline.parts import read_options
from pipeline.storage.atomic import write_json

from . import folder


@dataclass
class Tables:
    """What an adapter reads from a corpus folder.

    Attributes:
        clips: one dict per clip with columns of `tables.SCHEMA` (all but `content`, `duration` and the hashes), and what the
            check needs beside them: `expected` (seconds annotated), `where` (table and line), `landmarks`
            (digest of face points the corpus gives).
        annotations: rows of `tables.ANNOTATIONS`, frame-level truth; empty when there is none.
        problems: rows of `tables.QUARANTINE`: lines and files that did not become clips.
        notes: facts for the data card, e.g. the counts found or an official split that leaks.
    """

    clips: list[dict]
    annotations: list[dict] = field(default_factory=list)
    problems: list[dict] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)


def _encoding(name: str) -> str:
    try:
        "a".encode(name)
        return codecs.lookup(name).name
    except LookupError as error:
        raise ValueError(f"{name!r} is no encoding; e.g. utf-8, cp1252, gb18030, shift_jis") from error


class TableOptions(Group):
    """Of a corpus whose annotation is text of any encoding."""

    #: Encoding of the tables and transcripts, e.g. gb18030; null: told from their bytes.
    encoding: Annotated[str, AfterValidator(_encoding)] | None = None


class Adapter(ABC):
    """One corpus; class `EmoDb` in `emo_db.py` is `corpus.name: emo_db`.

    Attributes:
        name: as in `corpus.name`: that of the file.
        title, licence, homepage, layout: for the documentation table and for people who lack the data.
        classes: emotion names in the corpus' own order.
        scale: ends of the scale on which valence, arousal and dominance are annotated; `read` gives them in [-1, 1].
        checked: which of the publisher's own files the reader was tried on; "" when replicas alone prove it.
        generated: whether `prepare` makes the corpus.
        Options: what `corpus.options` may hold.

    Args:
        corpus: parameters; the folder need not be there yet.
        where: key that the options stand under, for errors.

    Raises:
        ParamsError: an option is not known, or a value it cannot be.
    """

    class Options(Group):
        """None."""

    name: ClassVar[str]
    title: str
    licence: str
    homepage: ClassVar[str]
    layout: ClassVar[str]
    classes: ClassVar[tuple[str, ...]] = ()
    scale: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    checked: ClassVar[str] = ""
    generated: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rsplit(".", 1)[1]

    def __init__(self, corpus: Corpus, where: str = "corpus.options") -> None:
        self.corpus = corpus
        self.options: Any = read_options(self.Options, corpus.options, where)

    @cached_property
    def root(self) -> Path:
        """The folder of the corpus.

        Raises:
            CorpusError: it is not there.
        """
        return folder.root_of(self.corpus.root, self.layout)

    @abstractmethod
    def read(self) -> Tables:
        """What the folder holds.

        Raises:
            CorpusError: it is not there, or not what it should be; the line names file and row.
        """

    def prepare(self, out: Path) -> None:
        """Fill the folder of the stage `corpus`: here with a note of where the corpus comes from.

        Raises:
            CorpusError: the folder of the corpus is not there.
        """
        if not Path(self.corpus.root).is_dir():
            raise CorpusError(
                f"corpus.root {self.corpus.root} is not a folder. Put {self.title} there ({self.homepage}), "
                "say where it is with -S corpus.root=FOLDER, or go on with features that were pulled: "
                "`dvc exp run --allow-missing`, `dvc repro --allow-missing`."
            )
        write_json(out / "source.json", {"corpus": self.name, "title": self.title, "licence": self.licence})

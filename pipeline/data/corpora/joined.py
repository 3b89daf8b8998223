"""Several corpora read by their own adapters and joined: emotions by common names, speakers kept apart."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from pipeline.data import harmony
from pipeline.data.join import Member, join_corpora
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus, Group, Name
from pipeline.storage.atomic import write_json

from . import folder, open_corpus
from .adapter import Adapter, Tables


class Part(Group):
    """One of the corpora.

    Attributes:
        name: its adapter; null: the key it stands under.
        root: its folder, below `corpus.root`; null: the key.
        options: of its adapter.
    """

    name: Name | None = None
    root: str | None = None
    options: dict[str, Any] = {}


class Joined(Adapter):
    """Adapter of joined corpora; `corpus.root` is a folder that holds all of theirs."""

    title = "Several corpora joined"
    licence = "of each corpus its own"
    homepage = "docs/corpora/joined.md"
    layout = "one folder per corpus, each laid out as its own adapter says"
    classes = harmony.COMMON
    checked = "there is no publisher"

    class Options(Group):
        #: Corpus → where it is and how it is read; the key names its clips.
        corpora: dict[Name, Part] = Field(min_length=1)
        #: Common names to keep; empty keeps all.
        classes: tuple[str, ...] = ()

    options: Options

    def __init__(self, corpus: Corpus, where: str = "corpus.options") -> None:
        super().__init__(corpus, where)
        self.members: dict[str, tuple[str, Adapter]] = {}
        for key, part in self.options.corpora.items():
            at = _below(corpus.root, part.root or key, f"{where}.corpora.{key}.root")
            chosen = Corpus(name=part.name or key, root=str(Path(corpus.root, at)), options=part.options)
            self.members[key] = at, open_corpus(chosen, f"{where}.corpora.{key}.options")
        self.licence = "; ".join(f"{key}: {adapter.licence}" for key, (_, adapter) in self.members.items())
        self.title = f"{Joined.title}: {', '.join(self.members)}"

    def prepare(self, out: Path) -> None:
        """Note where the corpora come from.

        Raises:
            CorpusError: the folder of one is not there.
        """
        for key, (at, adapter) in self.members.items():
            if not Path(adapter.corpus.root).is_dir():
                raise CorpusError(
                    f"{adapter.corpus.root} is not a folder. Put {adapter.title} there ({adapter.homepage}), or say where "
                    f"below corpus.root it is: corpus.options.corpora.{key}.root (now {at})."
                )
        write_json(out / "source.json", {"corpus": self.name, "title": self.title, "licence": self.licence})

    def read(self) -> Tables:
        """The tables of all corpora as one.

        Raises:
            CorpusError: a corpus is not there, or not what it should be.
            ParamsError: a class is no common name.
        """
        members = {key: Member(at, adapter.read()) for key, (at, adapter) in self.members.items()}
        return join_corpora(members, self.options.classes)


def _below(root: str, part: str, where: str) -> str:
    """The folder of a corpus relative to the common one.

    Raises:
        ParamsError: it is not below it.
    """
    path = Path(part)
    if path.is_absolute() and path.is_relative_to(Path(root).absolute()):
        part = path.relative_to(Path(root).absolute()).as_posix()
    if not folder.inside(Path(root), part):
        raise ParamsError(
            f"{where}: {part} is not below corpus.root ({root}). Set corpus.root to a folder above all corpora, or put a "
            "link to this one into it."
        )
    return str(PurePosixPath(part.replace("\\", "/")))

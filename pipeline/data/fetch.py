"""`corpus fetch`: openly downloadable corpora, resumable and checked; for the rest, whom to ask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ruamel.yaml import YAML

from pipeline.errors import CorpusError
from pipeline.storage.atomic import write_text

from . import corpora
from .archive import unpack
from .download import download, published


@dataclass(frozen=True)
class Source:
    """A file to download.

    Attributes:
        url: http(s) address.
        checksum: `sha256:…` or `md5:…` as published, or None.
        unpack: folder below the destination to unpack into; None keeps the file.
        inner: archives inside it that are unpacked too, wherever they land.
        record: address where the publisher states the checksum: a Zenodo record's JSON; asked before the download.
    """

    url: str
    checksum: str | None = None
    unpack: str | None = None
    inner: tuple[str, ...] = ()
    record: str | None = None

    @property
    def name(self) -> str:
        return unquote(PurePosixPath(urlsplit(self.url).path).name)


@dataclass(frozen=True)
class Fetched:
    """What `fetch` did: paths of the files, folders unpacked, and sentences for the person."""

    files: tuple[Path, ...]
    messages: tuple[str, ...]


@cache
def _known() -> dict:
    return YAML(typ="safe", pure=True).load((files(__package__) / "sources.yaml").read_text(encoding="utf-8"))


def sources(name: str) -> tuple[Source, ...]:
    """What can be downloaded of a corpus; empty when it must be asked for."""
    return tuple(
        Source(item["url"], item.get("checksum"), item.get("unpack"), tuple(item.get("inner", ())), item.get("record"))
        for item in _known().get(name, {}).get("files", ())
    )


def instructions(name: str) -> str:
    """Whom to ask for the corpus, and the folder layout expected afterwards."""
    adapter = corpora.find_adapter(name)
    ask = _known().get(name, {}).get("ask", adapter.homepage)
    return (
        f"{adapter.title} cannot be downloaded openly. Ask: {ask}. Licence: {adapter.licence}. "
        f"Then lay it out as: {adapter.layout}."
    )


def fetch(name: str, dest: str | Path, accept_licence: bool = False, *, items: tuple[Source, ...] | None = None) -> Fetched:
    """Download a corpus into `dest` and unpack it; what is there and whole is not fetched again.

    Args:
        name: of the corpus.
        dest: folder, made when absent; it becomes `corpus.root`.
        accept_licence: the person has read and accepts the licence named in the error without it.
        items: sources in place of the built-in ones (a mirror).

    Raises:
        CorpusError: unknown corpus, licence not accepted, server or network failure, checksum mismatch,
            damaged or hostile archive.
    """
    corpora.find_adapter(name)
    items = sources(name) if items is None else items
    if not items:
        return Fetched((), (instructions(name),))
    licence = _known().get(name, {}).get("licence") or corpora.find_adapter(name).licence
    if not accept_licence:
        raise CorpusError(f"{name} comes under this licence: {licence}. Read it, then say --accept-licence.")
    dest = Path(dest)
    try:
        dest.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(f"{dest} cannot be made a folder ({error.strerror}).") from error
    done, messages = [], [f"licence: {licence}"]
    for item in items:
        path = dest / item.name
        marker = dest / f".{item.name}.unpacked"
        checksum = item.checksum
        if item.record and not path.is_file():
            checksum = published(item.record, item.name)
        fresh = download(item.url, path, checksum)
        messages.append(f"{item.name}: {'downloaded' if fresh else 'already here'}")
        done.append(path)
        if item.unpack is not None and (fresh or not marker.exists()):
            count = unpack(path, dest / item.unpack)
            for inner in item.inner:
                for nested in sorted(dest.rglob(inner)):
                    count += unpack(nested, nested.parent)
            # Written last: an unpacking that was interrupted is done again.
            write_text(marker, f"{count} files\n")
            messages.append(f"{item.name}: {count} files unpacked")
    return Fetched(tuple(done), tuple(messages))

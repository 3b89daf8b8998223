"""`corpus fetch`: openly downloadable corpora, resumable and checked; for the rest, whom to ask."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
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

_CHUNK = 1 << 20
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Source:
    """A file to download.

    Attributes:
        url: http(s) address.
        checksum: `sha256:…` or `md5:…` as published, or None.
        unpack: folder below the destination to unpack into; None keeps the file.
        inner: archives inside it that are unpacked too, wherever they land.
    """

    url: str
    checksum: str | None = None
    unpack: str | None = None
    inner: tuple[str, ...] = ()

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
        Source(item["url"], item.get("checksum"), item.get("unpack"), tuple(item.get("inner", ())))
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
    dest.mkdir(parents=True, exist_ok=True)
    done, messages = [], [f"licence: {licence}"]
    for item in items:
        path = dest / item.name
        marker = dest / f".{item.name}.unpacked"
        fresh = download(item.url, path, item.checksum)
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


def download(url: str, path: Path, checksum: str | None = None) -> bool:
    """Fetch `url` to `path`, going on where an earlier attempt ended; False when it was there, whole.

    The bytes go to `<path>.part`; the file appears once they are all there and the checksum fits. Without
    a published checksum the sha256 of the first download is kept in `<path>.sha256`.

    Raises:
        CorpusError: network or server failure (what has come stays for the next attempt), or a mismatch.
    """
    record = path.with_name(path.name + ".sha256")
    if checksum is None and record.is_file():
        checksum = f"sha256:{record.read_text(encoding='utf-8').split()[0]}"
    if path.is_file():
        if checksum is None or digest(path, checksum) == checksum:
            if not record.is_file():
                _remember(path, record)
            return False
        raise CorpusError(f"{path} does not match its checksum {checksum}. Delete it, then fetch again.")
    part = path.with_name(path.name + ".part")
    total = _receive(url, part)
    if total is not None and part.stat().st_size != total:
        raise CorpusError(
            f"{url}: the connection ended after {part.stat().st_size} of {total} bytes. Run the same command again to go on."
        )
    if checksum is not None and (got := digest(part, checksum)) != checksum:
        part.unlink()
        raise CorpusError(
            f"{url}: the checksum is {got}, expected {checksum}. The file was dropped; fetch it again, "
            "or see whether the publisher has changed it."
        )
    part.replace(path)
    _remember(path, record)
    return True


def _remember(path: Path, record: Path) -> None:
    write_text(record, f"{digest(path, 'sha256:').removeprefix('sha256:')}  {path.name}\n")


def digest(path: Path, like: str) -> str:
    """`<algorithm>:<hex>` of a file, by the algorithm that `like` begins with."""
    name = like.split(":", 1)[0]
    if name not in ("sha256", "md5"):
        raise CorpusError(f"checksum {like!r}: the algorithm is not sha256 or md5.")
    with open(path, "rb") as file:
        return f"{name}:{hashlib.file_digest(file, name).hexdigest()}"


def _receive(url: str, part: Path) -> int | None:
    """Append what is missing of `url` to `part`; the whole size, where the server tells it."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise CorpusError(f"{url} is not an http address.")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            length = answer.headers.get("Content-Length")
            # A server that ignores the range sends all of it: then we begin anew.
            resumed = answer.status == 206 and _begins_at(answer.headers.get("Content-Range"), have)
            with open(part, "ab" if resumed else "wb") as file:
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
            return None if length is None else int(length) + (have if resumed else 0)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            # Nothing beyond what we have: it was whole already, or the file has changed.
            whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if whole.isdigit() and int(whole) == have:
                return have
            part.unlink()
            raise CorpusError(f"{url} has changed since the download began; run the same command again.") from error
        raise CorpusError(f"{url}: the server answers {error.code} {error.reason}.") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise CorpusError(f"{url}: {reason}. What has come is kept; run the same command again to go on.") from error


def _begins_at(content_range: str | None, have: int) -> bool:
    return content_range is not None and content_range.removeprefix("bytes ").split("-")[0].strip() == str(have)

"""One file from the web: resumed, bounded, checked against what its publisher states."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import CorpusError
from pipeline.progress import track
from pipeline.storage.atomic import write_text

log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_TIMEOUT = 60.0
#: Seconds before another attempt, where the network or the server failed and may not next time.
PAUSES = (1.0, 4.0, 15.0)
#: Answers of a server that may pass.
PASSING = (408, 425, 429, 500, 502, 503, 504)
#: Bytes that a download may have; the largest open corpora have a tenth of it.
MOST = 1 << 38
#: Bytes that the page of a record may have.
_MOST_RECORD = 16 << 20


class _Interrupted(CorpusError):
    """The network or the server failed; what has come is kept."""


def published(record: str, name: str) -> str:
    """The checksum of a file as a Zenodo record states it (`files: [{key, checksum}]`).

    Raises:
        CorpusError: the record cannot be had, or states none.
    """
    try:
        with _open(record) as answer:
            text = answer.read(_MOST_RECORD)
        files = json.loads(text)["files"]
        found = {item["key"]: str(item["checksum"]).lower() for item in files if "checksum" in item}
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{record}: the publisher's checksums cannot be had ({' '.join(str(error).split())}).") from error
    if name not in found:
        raise CorpusError(f"{record} states no checksum of {name}; it has {', '.join(sorted(found)) or 'none'}.")
    return found[name]


def download(url: str, path: Path, checksum: str | None = None) -> bool:
    """Fetch `url` to `path`, going on where an earlier attempt ended; False when it was there, whole. A connection that ends
    early, and a server that is busy, are asked again after `PAUSES`.

    The bytes go to `<path>.part`; the file appears once they are all there and the checksum fits. Without
    a published checksum the sha256 of the first download is kept in `<path>.sha256`.

    Raises:
        CorpusError: network or server failure (what has come stays for the next attempt), a mismatch, or more than `MOST`
            or the disk can take.
    """
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; {url} would become a file of that name. Move it away.")
    record = path.with_name(path.name + ".sha256")
    if checksum is None and record.is_file():
        checksum = f"sha256:{(record.read_text(encoding='utf-8').split() or ['none'])[0]}"
    if path.is_file():
        if checksum is None or digest(path, checksum) == checksum:
            if not record.is_file():
                _remember(path, record)
            return False
        raise CorpusError(f"{path} does not match its checksum {checksum}. Delete it, then fetch again.")
    part = path.with_name(path.name + ".part")
    for pause in (*PAUSES, None):
        try:
            total = _receive_all(url, part)
            break
        except _Interrupted as error:
            if pause is None:
                raise
            log.warning("%s Again in %g s.", error, pause)
            time.sleep(pause)
    if total is None and checksum is None:
        log.warning("%s: the server does not say how long the file is; whether all of it came cannot be known.", url)
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


class _Redirects(urllib.request.HTTPRedirectHandler):
    """What was asked for over https does not come over anything less."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it leads from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, have: int = 0) -> Any:
    if urlsplit(url).scheme not in ("http", "https"):
        raise CorpusError(f"{url} is not an http address.")
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    return urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)


def _length(text: str | None) -> int | None:
    """Bytes that a header tells; None for a header that is absent or no number."""
    return int(text) if text is not None and text.strip().isascii() and text.strip().isdigit() else None


def _check_size(size: int, url: str, part: Path) -> None:
    room = shutil.disk_usage(part.parent).free + (part.stat().st_size if part.exists() else 0)
    if size > min(MOST, room):
        raise CorpusError(
            f"{url}: {size >> 20} MB or more; at most {MOST >> 20} MB are fetched, and the disk has {room >> 20} MB."
        )


def _receive_all(url: str, part: Path) -> int | None:
    """The whole size, where the server tells it; all of it is in `part`."""
    total = _receive(url, part)
    if total is not None and part.stat().st_size != total:
        raise _Interrupted(
            f"{url}: the connection ended after {part.stat().st_size} of {total} bytes. Run the same command again to go on."
        )
    return total


def _receive(url: str, part: Path) -> int | None:
    """Append what is missing of `url` to `part`; the whole size, where the server tells it."""
    have = part.stat().st_size if part.exists() else 0
    try:
        with _open(url, have) as answer:
            length = _length(answer.headers.get("Content-Length"))
            # A server that ignores the range sends all of it: then we begin anew.
            resumed = answer.status == 206 and _begins_at(answer.headers.get("Content-Range"), have)
            done = have if resumed else 0
            total = None if length is None else length + done
            _check_size(total or done, url, part)
            name = part.name.removesuffix(".part")
            with open(part, "ab" if resumed else "wb") as file, track(total or 0, f"{name}, bytes") as advance:
                advance(done)
                while chunk := answer.read(_CHUNK):
                    done += len(chunk)
                    advance(len(chunk))
                    if done > MOST:
                        _check_size(done, url, part)
                    file.write(chunk)
            return total
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            # Nothing beyond what we have: it was whole already, or the file has changed.
            whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if whole.isdigit() and int(whole) == have:
                return have
            part.unlink()
            raise CorpusError(f"{url} has changed since the download began; run the same command again.") from error
        kind = _Interrupted if error.code in PASSING else CorpusError
        raise kind(f"{url}: the server answers {error.code} {error.reason}.") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise _Interrupted(f"{url}: {reason}. What has come is kept; run the same command again to go on.") from error


def _begins_at(content_range: str | None, have: int) -> bool:
    return content_range is not None and content_range.removeprefix("bytes ").split("-")[0].strip() == str(have)

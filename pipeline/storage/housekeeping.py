"""Looking after the cache folder: what is in it, whether it is sound, what can go.

Clips (`<kind>/<identity>/`), training runs (`runs/<identity>/`), adapted encoders (`adapters/<identity>/`), word vectors
(`vectors/<sha256>/`), memos (`memo/<kind>/`) and what earlier versions left (`facts/`, `files/`, `sha256/`) go by one rule:
whatever nobody used for so many days.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from .clip_cache import ClipCache, digest, root
from .folder_lock import remove_unused

#: Sub-folders that hold a folder per thing remembered, which tells its last use by its own time and its files'.
KINDS = ("runs", "adapters", "vectors", "memo")
#: Folders that no version writes any more.
EARLIER = ("facts", "files", "sha256")
#: What `remove_unused` leaves when it is stopped.
_ASIDE = re.compile(r"\..+\.\d+")


@dataclass(frozen=True)
class Item:
    """Something that is kept or removed as a whole.

    Attributes:
        kind: sub-folder of the cache. folder: where it is.
        identity: what it was made from, where that is written beside it.
        clips: it is a table of clips, which has entries to count and to check.
    """

    kind: str
    folder: Path
    identity: dict
    clips: bool = False

    @property
    def title(self) -> str:
        """A few words."""
        weights = self.identity.get("weights")
        source = weights.get("source", "") if isinstance(weights, dict) else ""
        return " ".join(str(part) for part in (self.identity.get("family", ""), source) if part) or "–"

    @property
    def lock(self) -> Path:
        """What its users lock."""
        return self.folder / "identity.json" if self.clips else self.folder

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(state.st_blocks * 512 for state in _states(self.folder))

    @property
    def idle(self) -> float:
        """Days since its last use. Looking at clips is none, so only their identity file counts, which use touches."""
        last = self.lock.stat().st_mtime if self.clips else max((state.st_mtime for state in _states(self.folder)), default=0.0)
        return (time.time() - last) / 86400

    def describe(self) -> str:
        """A line of the table."""
        entries = ""
        if self.clips:
            with ClipCache(self.kind, self.identity, readonly=True) as cache:
                entries = f"{len(cache)} clips"
        name = "" if self.folder.parent == root() else self.folder.name[:12]
        return f"{self.kind:8} {name:12}  {entries:>14}  {decimal(self.size):>10}  {self.idle:5.1f} days idle  {self.title}"


def list_items() -> Iterator[Item]:
    """All the cache holds that may go by itself."""
    for path in sorted(root().glob("*/*/identity.json")):
        if (path.parent / "data.mdb").exists() and not path.parent.name.startswith("."):
            identity = _read_identity(path)
            yield Item(path.parent.parent.name, path.parent, identity, clips=digest(identity) == path.parent.name)
    for kind in KINDS:
        for folder in sorted((root() / kind).glob("[!.]*/")):
            yield Item(kind, folder, _read_identity(folder / "identity.json"))
    for kind in EARLIER:
        if (root() / kind).is_dir():
            yield Item(kind, root() / kind, {"family": "of an earlier version"})


def format_stats() -> str:
    """A table: kind, name, clips, bytes, days since last use."""
    items = list(list_items())
    lines = [str(root()), *(item.describe() for item in items)]
    return "\n".join([*lines, f"total {decimal(sum(item.size for item in items))}"])


def verify_clips(*, repair: bool = False) -> int:
    """Number of clips that fail their checksum; with `repair` they are dropped."""
    damaged = 0
    for item in list_items():
        if item.clips:
            with ClipCache(item.kind, item.identity, readonly=not repair) as cache:
                damaged += len(cache.verify(repair=repair))
    return damaged


def collect_idle(*, days: float, dry_run: bool = False) -> list[str]:
    """Remove what was idle for `days`. Returns what was done, a line each.

    >>> collect_idle(days=30)
    ['nothing to remove']
    """
    done = []
    if not dry_run:
        _finish_removing()
    for item in list(list_items()):
        if item.idle < days:
            continue
        name = f"{item.kind} {item.folder.name[:12]} ({item.title}, {decimal(item.size)})"
        if remove_unused(item.folder, item.lock, dry_run=dry_run):
            done.append(f"{'would remove' if dry_run else 'removed'} {name}")
        else:
            done.append(f"kept {name}: a run uses it")
    return done or ["nothing to remove"]


def _finish_removing() -> None:
    """Remove what a `gc` that was stopped had put aside."""
    for left in [*root().glob(".*"), *root().glob("*/.*")]:
        if left.is_dir() and _ASIDE.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)


def _states(folder: Path) -> list[os.stat_result]:
    """Of the folder and all below it that is still there."""
    states = []
    for path in [folder, *folder.rglob("*")]:
        with suppress(FileNotFoundError):
            states.append(path.lstat())
    return states


def _read_identity(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

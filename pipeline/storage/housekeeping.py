"""Looking after the clip cache: what is in it, whether it is sound, what can go."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from .clip_cache import ClipCache, root


def environments() -> Iterator[tuple[str, Path, dict]]:
    """(kind, folder, identity) of every identity cached."""
    for path in sorted(root().glob("*/*/identity.json")):
        if not (path.parent / "data.mdb").exists() or path.parent.name.startswith("."):
            continue  # runs of `train` live beside the clips and have no table; a dot: being removed
        yield path.parent.parent.name, path.parent, json.loads(path.read_text(encoding="utf-8"))


def title(identity: dict) -> str:
    """An identity in a few words."""
    weights = identity.get("weights")
    source = weights.get("source", "") if isinstance(weights, dict) else ""
    return " ".join(str(part) for part in (identity.get("family", ""), source) if part) or "–"


def stats() -> str:
    """A table: kind, identity, entries, bytes, days since last use."""
    lines = [f"{root()}"]
    total = 0
    for kind, folder, identity in environments():
        with ClipCache(kind, identity, readonly=True) as cache:
            entries = len(cache)
        size = _size(folder)
        total += size
        lines.append(
            f"{kind:8} {folder.name[:12]}  {entries:>8} clips  {decimal(size):>10}  "
            f"{_idle(folder):5.1f} days idle  {title(identity)}"
        )
    return "\n".join([*lines, f"total {decimal(total)}"])


def verify(*, repair: bool = False) -> int:
    """Number of entries that fail their checksum."""
    damaged = 0
    for kind, _, identity in environments():
        with ClipCache(kind, identity, readonly=not repair) as cache:
            damaged += len(cache.verify(repair=repair))
    return damaged


def collect(*, days: float, dry_run: bool = False) -> list[str]:
    """Remove identities idle for `days`. Returns what was done, a line each."""
    done, would = [], "would remove" if dry_run else "removed"
    for left in [] if dry_run else root().glob("*/.*"):
        shutil.rmtree(left, ignore_errors=True)  # of a `gc` that was stopped
    for kind, folder, identity in list(environments()):
        if _idle(folder) < days:
            continue
        name = f"{kind} {folder.name[:12]} ({title(identity)}, {decimal(_size(folder))})"
        with open(folder / "identity.json", "rb") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                done.append(f"kept {name}: a run uses it")
                continue
            except OSError:
                pass  # no locks on this file system
            done.append(f"{would} {name}")
            if not dry_run:
                # Out of the way first: a run that starts now makes a folder of its own.
                aside = folder.with_name(f".{folder.name}.{os.getpid()}")
                os.replace(folder, aside)
                shutil.rmtree(aside)
    return done or ["nothing to remove"]


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file())


def _idle(folder: Path) -> float:
    """Days since the environment was last opened for use (`ClipCache` touches its identity file)."""
    return (time.time() - (folder / "identity.json").stat().st_mtime) / 86400

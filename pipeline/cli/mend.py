"""`mend`: what a DVC that was killed in the midst of a write left behind, and that it would refuse ever after.

DVC writes three small files in place: the list of who reads and writes what (`rwlock`), `dvc.lock` and `params.yaml`.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import UserError

#: Lists of readers and writers, of the checkout and of the queue.
LISTS = (".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock")
LOCKS = (".dvc/tmp/lock", ".dvc/tmp/rwlock.lock", ".dvc/tmp/exps/rwlock.lock")


class BusyError(UserError):
    """DVC is at work here; what looks broken may be half written."""


def mend(folder: Path = Path()) -> list[str]:
    """Put right what is broken, while no DVC is at work. Returns a line for each.

    Raises:
        BusyError: something is broken, and a living process may still be writing it.
    """
    if not any(_broken(folder)):
        return []
    with _alone(folder):
        return [repair(folder) for repair in list(_broken(folder))]


def _broken(folder: Path) -> Iterator:
    for name in LISTS:
        if (folder / name).is_file() and not _is_list(folder / name):
            yield lambda at, name=name: _remove(at, name)
    if (folder / "dvc.lock").is_file() and not _is_lock(folder / "dvc.lock"):
        yield _restore_lock
    if (folder / "params.yaml").is_file() and not (folder / "params.yaml").stat().st_size and (folder / "conf").is_dir():
        yield _compose


def _is_list(path: Path) -> bool:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) <= {"read", "write"} and all(isinstance(v, dict) for v in value.values())


def _is_lock(path: Path) -> bool:
    from ruamel.yaml import YAML, YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, ValueError):
        return False
    return isinstance(value, dict) and isinstance(value.get("stages", {}), dict) and "schema" in value


def _remove(folder: Path, name: str) -> str:
    (folder / name).unlink()
    return f"{name} was half written by a DVC that was killed; it is removed."


def _restore_lock(folder: Path) -> str:
    committed = subprocess.run(["git", "show", "HEAD:./dvc.lock"], cwd=folder, capture_output=True)
    if committed.returncode == 0:
        (folder / "dvc.lock").write_bytes(committed.stdout)
        return "dvc.lock was half written by a DVC that was killed; it is the committed one again."
    (folder / "dvc.lock").unlink()
    return "dvc.lock was half written by a DVC that was killed; it is removed, and what was done comes from the cache."


def _compose(folder: Path) -> str:
    from pipeline.compose import compose, text
    from pipeline.storage.atomic import write_text

    write_text(folder / "params.yaml", text(compose((), folder / "conf")))
    return "params.yaml was empty; it is composed from conf/ again."


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold DVC's own locks, when nobody else does and no DVC runs in `folder`.

    Raises:
        BusyError: somebody does.
    """
    with ExitStack() as held:
        for name in LOCKS:
            if (folder / name).exists():
                file = held.enter_context((folder / name).open("a"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise BusyError(f"{name} is held by a running DVC. Wait for it, or end it, then run this again.") from None
        for number, command in _running(folder):
            raise BusyError(f"DVC is running here (PID {number}: {command}). Wait for it, or end it, then run this again.")
        yield


def _running(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes of DVC whose working folder is this one or lies below."""
    import psutil  # type: ignore[import-untyped]

    for process in psutil.process_iter():
        try:
            words, place = process.cmdline(), Path(process.cwd())
        except (psutil.Error, OSError):
            continue
        named = any(Path(word).name == "dvc" for word in words[:4])
        if named and process.pid not in (os.getpid(), os.getppid()) and place.is_relative_to(folder.resolve()):
            yield process.pid, " ".join(words)[:80]

"""The DAG of a finished workspace: a `dvc repro` with nothing to do, and what another fusion costs beside its training.

The workspace, a git repository, is copied; the copy is what is run, with a clip cache of its own.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .figures import Figure, seconds

#: Training as short as it gets, so that nearly all that is left is not training.
SHORT = ("training.seeds=1", "training.epochs=1", "training.unimodal=false")
NOTHING = "dvc repro with nothing to do"
BESIDE = "another fusion, outside its training"


@dataclass(frozen=True)
class Size:
    workspace: Path | None = None
    repeats: int = 3


TINY = Size()


def measure(folder: Path, size: Size) -> list[Figure]:
    if size.workspace is None or not (size.workspace / "dvc.lock").is_file():
        why = "no finished workspace here: run `make repro`, or give --workspace FOLDER"
        return [Figure(NOTHING, None, "s", "<= 3", why), Figure(BESIDE, None, "s", "<= 8", why)]
    copy = folder / "workspace"
    shutil.copytree(size.workspace, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv", "__pycache__", "tmp"))
    cache = folder / "cache"
    # The first look hashes the copied files.
    _dvc(copy, cache, "repro")
    nothing = [seconds(lambda: _dvc(copy, cache, "repro")) for _ in range(size.repeats)]
    _experiment(copy, cache, "adaptive")
    other = [seconds(lambda name=name: _experiment(copy, cache, name)) for name in ("gated", "concat", "cross_attention")]
    return [
        Figure(NOTHING, statistics.median(nothing), "s", "<= 3"),
        Figure(
            BESIDE, statistics.median(other), "s", "<= 8", "DVC, start of train, evaluate, report; one epoch of one seed is in it"
        ),
    ]


def _experiment(workspace: Path, cache: Path, fusion: str) -> None:
    _dvc(workspace, cache, "exp", "run", *(f"-S{change}" for change in (f"fusion={fusion}", *SHORT)))


def _dvc(workspace: Path, cache: Path, *words: str) -> None:
    """DVC of this Python in the workspace.

    Raises:
        RuntimeError: it failed; the end of what it said.
    """
    binaries = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=workspace,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": binaries, "AFFECTORY_CACHE": str(cache)},
    )
    if done.returncode:
        raise RuntimeError(f"dvc {' '.join(words)} failed: {(done.stderr or done.stdout)[-500:]}")

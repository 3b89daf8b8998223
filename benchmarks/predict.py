"""Raw files predicted with the models of a finished workspace: from nothing, many in a call, one beside the networks."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .figures import Figure

COLD = "predict, one file, from nothing"
MANY = "one call of many files ÷ a call for each"
BESIDE = "a file in a call of many, beside the networks"


@dataclass(frozen=True)
class Size:
    workspace: Path | None = None
    files: int = 32
    single: int = 3


TINY = Size(files=4, single=1)


def measure(folder: Path, size: Size) -> list[Figure]:
    found = sorted((size.workspace / "data/corpus/media").glob("*.mp4"))[: size.files] if size.workspace else []
    if size.workspace is None or not found or not (size.workspace / "models/runs").is_dir():
        why = "no finished workspace of the demo here: run `make repro`, or give --workspace FOLDER"
        targets = ((COLD, "s", "<= 4"), (MANY, "", ""), (BESIDE, "s", "<= 0.15"))
        return [Figure(name, None, unit, target, why) for name, unit, target in targets]
    media = folder / "media"
    media.mkdir()
    for path in found:
        shutil.copy(path, media)
    files = sorted(media.iterdir())
    cold = [_call(size.workspace, folder / f"cold{i}", [file]) for i, file in enumerate(files[: size.single])]
    each, processor = (min(one[part] for one in cold) for part in (0, 1))
    _, many = _call(size.workspace, folder / "many", [media])
    took = f"{processor:.2f} s of processor time in all processes; the least of {len(cold)}"
    return [
        Figure(COLD, each, "s", "<= 4", took),
        Figure(MANY, many / (processor * len(files)), "", "", f"{len(files)} files, processor time"),
        Figure(BESIDE, _beside(size.workspace, folder / "beside", files), "s", "<= 0.15", "wall time, one after the other"),
    ]


def _call(workspace: Path, cache: Path, words: list[Path]) -> tuple[float, float]:
    """(seconds, seconds of processor time of all its processes) of the command.

    Raises:
        RuntimeError: it failed; the end of what it said.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "predict", *map(str, words)],
        cwd=workspace,
        capture_output=True,
        text=True,
        env=os.environ | {"AFFECTORY_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"predict failed: {(done.stderr or done.stdout)[-500:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _beside(workspace: Path, cache: Path, files: list[Path]) -> float:
    """Seconds per file that are not spent in an encoder's network, the first batch left out: it loads them."""
    from pipeline import params as parameters
    from pipeline.features.engine.forward import Forward
    from pipeline.serving.files import BATCH, keeping, predict_files
    from pipeline.serving.medium import find_media
    from pipeline.serving.predictor import Predictor

    spent = 0.0
    plain = Forward.__call__

    def timed(self, batch):  # noqa: ANN001, ANN202
        nonlocal spent
        began = time.perf_counter()
        try:
            return plain(self, batch)
        finally:
            spent += time.perf_counter() - began

    here, before = Path.cwd(), os.environ.get("AFFECTORY_CACHE")
    os.chdir(workspace)
    os.environ["AFFECTORY_CACHE"] = str(cache)
    Forward.__call__ = timed  # type: ignore[method-assign]
    try:
        predictor = Predictor.load(parameters.read("params.yaml"), workspace / "models/runs")
        first, rest = files[: min(BATCH, len(files) // 2)], files[min(BATCH, len(files) // 2) :]
        with keeping(predictor):
            list(predict_files(predictor, find_media([str(file) for file in first])))
            spent, began = 0.0, time.perf_counter()
            list(predict_files(predictor, find_media([str(file) for file in rest])))
            return (time.perf_counter() - began - spent) / len(rest)
    finally:
        Forward.__call__ = plain  # type: ignore[method-assign]
        os.chdir(here)
        if before is None:
            del os.environ["AFFECTORY_CACHE"]
        else:
            os.environ["AFFECTORY_CACHE"] = before

"""What an earlier `train` from the very same inputs came to, found again without data, networks or a framework.

A run's own key (see `jobs`) is known once its features and labels are loaded. Here the inputs are known by their bytes, and the
code by all files of the package: any difference, of a comment too, leads to the longer way.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pipeline.code import FOLDER as CODE
from pipeline.errors import CacheError
from pipeline.params import Params
from pipeline.parts import OWN
from pipeline.runs.answers import are_kept
from pipeline.runs.folders import HISTORY, RunName
from pipeline.storage import memo
from pipeline.storage.clip_cache import digest, root

KIND = "trained"
#: Parameters that decide no run: where and how fast it is made.
ELSEWHERE = {"run"}
#: What says on Linux that there may be a GPU, which only a framework can tell for certain.
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def describe_inputs(params: Params, sources: Sequence[str | Path]) -> str | None:
    """Hash of all that decides the runs of the parameters; None where that is not to be had without a framework.

    That is where runs are for a GPU, or may read more files than these: weights, or those of a curriculum.

    Args:
        sources: the files that `train` reads.
    """
    values = params.model_dump(mode="json", exclude=ELSEWHERE)
    groups = [values[name] for name in ("fusion", "context", "heads", "loss", "temporal", "training")]
    if not _runs_on_processor(params) or any(_may_be_file(word) for word in _words(groups)):
        return None
    own = os.environ.get(OWN)
    return digest(
        {
            "params": values,
            "sources": [memo.sha256(Path(path)) if Path(path).is_file() else None for path in sources],
            "code": [_sum_code(CODE), _sum_code(Path(own)) if own else None],
            "versions": {name: version(name) for name in ("torch", "numpy", "polars", "scikit-learn", "scipy")},
            "machine": [platform.machine(), platform.python_version()],
        }
    )


def note_runs(inputs: str, answers: str, runs: Mapping[RunName, Path]) -> None:
    """Remember in which folders of the cache the runs are.

    Args:
        inputs: see `describe_inputs`. answers: the code that asked them, see `are_kept`.
    """
    found = [[*vars(name).values(), folder.parent.name] for name, folder in runs.items()]
    try:
        with memo.Memo(KIND) as remembered:
            remembered.put({inputs: json.dumps({"answers": answers, "runs": found})})
    except CacheError:
        pass  # costs time, nothing else


def recall_runs(inputs: str) -> dict[RunName, Path] | None:
    """Run → its finished folder in the cache, when all are there; else None."""
    try:
        with memo.Memo(KIND) as remembered:
            known = remembered.get([inputs]).get(inputs)
    except CacheError:
        return None
    if known is None:
        return None
    said = json.loads(known)
    found = {RunName(*name): root() / "runs" / key / "run" for *name, key in said["runs"]}
    there = all((folder / HISTORY).is_file() and are_kept(folder, said["answers"]) for folder in found.values())
    return found if there else None


def _runs_on_processor(params: Params) -> bool:
    if params.run.device == "cpu":
        return True
    return params.run.device == "auto" and platform.system() == "Linux" and not any(map(os.path.exists, DRIVERS))


def _words(values: object) -> Iterator[str]:
    """All texts among JSON values."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, (list, dict)):
        for one in values.values() if isinstance(values, dict) else values:
            yield from _words(one)


def _may_be_file(word: str) -> bool:
    return ":" in word or "/" in word or "." in word or os.path.exists(word)


def _sum_code(folder: Path) -> str:
    """sha256 of all modules below a folder, with their places."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        total.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()

"""Where trained runs lie: `<root>/<variant>/fold<k>/seed<s>/`. This grammar stands here alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StoreError, one_of
from pipeline.storage.atomic import UNFINISHED

#: The variant in which all streams are fused.
FUSED = "fused"
#: The linear model of the same streams, which the fused variant has to beat.
LINEAR = "linear"
#: The mean of the fused runs, and of the linear one if it is asked for; it has no run of its own.
ENSEMBLE = "ensemble"
#: One network that was taught by the ensemble.
STUDENT = "student"
#: Variants of all streams, in the order of reports; the others are a stream each.
WHOLE = (FUSED, ENSEMBLE, STUDENT, LINEAR)
CONFIG, WEIGHTS, HISTORY = "config.json", "model.safetensors", "history.json"
#: Of the layout of a run folder.
VERSION = 3


@dataclass(frozen=True, order=True)
class RunName:
    """Which run it is.

    >>> RunName("fused", 0, 3).path
    'fused/fold0/seed3'
    """

    variant: str
    fold: int
    seed: int

    @property
    def path(self) -> str:
        """Relative folder."""
        return f"{self.variant}/fold{self.fold}/seed{self.seed}"


def list_runs(root: str | Path) -> dict[RunName, Path]:
    """Finished runs below `root`, sorted by variant, fold and seed."""
    found = {}
    for config in Path(root).glob(f"*/fold*/seed*/{CONFIG}"):
        variant, fold, seed = config.parent.parts[-3:]
        if fold[4:].isdigit() and seed[4:].isdigit():
            found[RunName(variant, int(fold[4:]), int(seed[4:]))] = config.parent
    return dict(sorted(found.items()))


def find_seeds(root: str | Path, variant: str = FUSED, fold: int = 0) -> list[Path]:
    """Folders of all seeds of one variant and fold.

    Raises:
        StoreError: nothing was trained, or no such variant or fold.
    """
    runs = list_runs(root)
    if not runs:
        raise StoreError(f"{root} holds no trained model. Run `dvc repro train` (or `make repro`).")
    if variant not in {name.variant for name in runs}:
        raise one_of("trained variant", variant, {name.variant for name in runs}, StoreError)
    folders = [folder for name, folder in runs.items() if (name.variant, name.fold) == (variant, fold)]
    if not folders:
        raise StoreError(f"{Path(root) / variant} has no fold {fold}. Run `dvc repro train`.")
    return folders


def clear(out: Path, wanted: set[str]) -> None:
    """Remove run folders that are not wanted; nothing else is touched.

    Args:
        wanted: paths below `out`, see `RunName.path`.

    Raises:
        StoreError: `out` is no folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not out.is_dir():
        raise StoreError(f"{out} is not a folder.")
    for folder in out.glob("*/fold*/seed*"):
        if folder.is_dir() and folder.relative_to(out).as_posix() not in wanted:
            shutil.rmtree(folder)


def copy_run(folder: Path, into: Path) -> None:
    """Copy what is finished of a run's folder; what another process is about to put there is not.

    >>> from pipeline.storage.atomic import atomic_folder, write_json
    >>> write_json("run/config.json", {})
    >>> with atomic_folder("run/answers"):
    ...     copy_run(Path("run"), Path("copy"))
    >>> [path.name for path in Path("copy").iterdir()]
    ['config.json']
    """
    shutil.copytree(folder, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns(UNFINISHED))


def read_config(folder: str | Path) -> dict:
    """The content of a run's `config.json`.

    Raises:
        StoreError: the folder holds no run, or one of another version.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise StoreError(f"{folder} holds no trained model. Run `dvc repro train`.")
    config: dict = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("version") != VERSION:
        raise StoreError(f"{folder} was made by another version of this pipeline. Run `dvc repro train`.")
    return config

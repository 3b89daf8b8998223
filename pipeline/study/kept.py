"""What a run left: its predictions and parameters, in the workspace, a commit or an experiment of DVC; or the last run."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.errors import StoreError
from pipeline.evaluation.last import read_last
from pipeline.params.base import flatten

#: The name of what lies in the folder as it is.
WORKSPACE = "workspace"
#: That of the run before it in this checkout, see `evaluation.last`.
LAST = "last"
PREDICTIONS, PARAMS = "reports/predictions.parquet", "params.yaml"


@dataclass(frozen=True)
class Kept:
    """One run.

    Attributes:
        predictions: as `evaluate` writes them, truth included. params: flat, without `run`, which decides no result.
        variant: which of its models is meant; none where that is left to who asks.
    """

    name: str
    predictions: pl.DataFrame
    params: dict[str, object]
    variant: str | None = None

    @property
    def select(self) -> str:
        """The metric that selected its checkpoints."""
        return str(self.params.get("training.select"))

    @property
    def shared(self) -> str:
        """`speaker` or `session` where unlabelled held-out clips have a part in its features, else empty."""
        normalise = str(self.params.get("training.normalise"))
        return normalise if normalise in ("speaker", "session") else ""


def read_kept(name: str, folder: Path = Path()) -> Kept:
    """The run of this name: `workspace`, `last`, whatever git calls a commit, or an experiment.

    Args:
        name: also `NAME:VARIANT`, one of its models (no name of git has a colon).
        folder: that holds `dvc.yaml`.

    Raises:
        StoreError: there is no such commit or experiment, or it has no predictions, here or on the remote.
    """
    run, _, variant = name.partition(":")
    if run == LAST:
        if (kept := read_last(folder / "reports" / "last.json")) is None:
            raise StoreError("no earlier run is kept in this checkout; name a commit or an experiment.")
        return Kept(name, kept[0], _choose(kept[1]), variant or None)
    found = [_read_file(run, path, folder) for path in (PREDICTIONS, PARAMS)]
    try:
        table, values = pl.read_parquet(io.BytesIO(found[0])), _parse(found[1])
    except (pl.exceptions.PolarsError, ValueError, OSError) as error:
        raise StoreError(f"{PREDICTIONS} of {run} cannot be read ({str(error).splitlines()[0]}).") from error
    return Kept(name, table, _choose(values), variant or None)


def _choose(values: dict[str, object]) -> dict[str, object]:
    """What decides a result."""
    return {key: value for key, value in values.items() if key.split(".")[0] not in ("run", "composed")}


def _parse(content: bytes) -> dict[str, object]:
    from ruamel.yaml import YAML, YAMLError

    try:
        return flatten(YAML(typ="safe", pure=True).load(content))  # as `params.file` reads it: `on` is a name, and no truth
    except YAMLError as error:
        raise ValueError(f"{PARAMS} is no YAML") from error


def _read_file(name: str, path: str, folder: Path) -> bytes:
    """
    Raises:
        StoreError: see `read_kept`.
    """
    if name == WORKSPACE:
        try:
            return (folder / path).read_bytes()
        except OSError as error:
            raise StoreError(f"the workspace has no {path}. Run `dvc repro`.") from error
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        with DVCFileSystem(str(folder), rev=name).open(path, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError as error:
        raise StoreError(
            f"{name} has no {path} that is kept here: commit dvc.lock after a run, and `dvc fetch` what lies on a remote."
        ) from error
    except DvcException as error:
        raise StoreError(f"{name} is no commit and no experiment of this folder ({str(error).splitlines()[0]}).") from error

"""Stage `train`: every variant, fold and seed, into `models/runs/<variant>/fold<k>/seed<s>/`.

DVC empties `models/` before the stage, so runs live in the cache (see `jobs`) and are copied from there. When nothing that
decides them has changed no framework is imported (see `recall`).
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.params import Params
from pipeline.runs.ensemble import choose_shares, write_shares
from pipeline.runs.folders import HISTORY, RunName, clear, copy_run
from pipeline.storage.atomic import atomic_folder, write_text
from pipeline.storage.folder_lock import use_folder

from .recall import describe_inputs, recall_runs
from .sources import History, Sources
from .trackers.base import open_trackers

log = logging.getLogger(__name__)


def train(
    params: Params,
    index: str | Path = "data/index.h5",
    *,
    manifest: str | Path = "data/manifest.parquet",
    folds: str | Path = "data/folds.parquet",
    annotations: str | Path = "data/annotations.parquet",
    out: str | Path = "models/runs",
    on_run: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Train all runs of the parameters.

    Args:
        on_run: called after each run with its path, how many are done, how many there are.

    Returns:
        The run folders. Beside them `history.csv` (variant, fold, seed, phase, epoch, losses, validation metric),
        and with `training.ensemble` what each variant is worth in it.

    Raises:
        StoreError, ParamsError, DeviceError: see `fit`, `Dataset.load`, `pick_devices`. UserError: see `open_trackers`.
    """
    if params.protocol.kind == "none":
        return _train_nothing(Path(out))
    trackers = open_trackers(params.run.track)
    sources, out = [str(path) for path in (index, manifest, folds, annotations)], Path(out)
    inputs = None if trackers else describe_inputs(params, sources)
    runs = recall_runs(inputs) if inputs else None
    histories = _copy_known(runs, out, on_run) if runs else None
    if histories is None:
        from .every import train_every  # with a framework

        histories = train_every(params, Sources(*sources), out, trackers, on_run, inputs)
    write_text(out / "history.csv", _format_history(histories))
    write_shares(out, choose_shares(params.training.ensemble.linear) if params.training.ensemble else None)
    return [out / name.path for name in histories]


def _copy_known(
    runs: Mapping[RunName, Path], out: Path, on_run: Callable[[str, int, int], None] | None
) -> dict[RunName, History] | None:
    """Runs out of the cache; None where one was collected just now."""
    log.info("train: all %d runs are known, nothing that decides them has changed", len(runs))
    clear(out, {name.path for name in runs})
    histories = {}
    for done, (name, folder) in enumerate(runs.items(), 1):
        with use_folder(folder.parent):
            if not (folder / HISTORY).is_file():
                return None
            with atomic_folder(out / name.path) as made:
                copy_run(folder, made)
        histories[name] = json.loads((out / name.path / HISTORY).read_text(encoding="utf-8"))
        if on_run is not None:
            on_run(name.path, done, len(runs))
    return histories


def _train_nothing(out: Path) -> list[Path]:
    """What is left of a run without labels."""
    log.info("protocol none: there is nothing to learn from; the features are in features/, and index.h5 joins them")
    clear(out, set())
    write_text(out / "history.csv", "variant,fold,seed\n")
    write_shares(out, None)
    return []


def _format_history(histories: dict[RunName, History]) -> str:
    text = io.StringIO()
    columns = list(next(iter(histories.values()))[0])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "fold", "seed", *columns])
    for name in sorted(histories, key=lambda n: n.path):
        for row in histories[name]:
            writer.writerow([name.variant, name.fold, name.seed, *(row[c] for c in columns)])
    return text.getvalue()

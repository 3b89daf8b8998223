"""Ask a trained run, once, and keep what it says in its folder."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import polars as pl
from torch import Tensor

from pipeline.code import code_digest
from pipeline.runs.answers import LOOKS, Answers, are_kept, label_kept, subsets, write_answers
from pipeline.runs.folders import FUSED, LINEAR
from pipeline.runs.run import TrainedModel, load_run
from pipeline.training.data.dataset import Dataset

from .calibration import find_temperature
from .clips import predict_rows
from .over_time import look_over_time, predict_tokens, reduce_paths
from .speakers import ask_speakers

#: Variants that are also asked with streams left out.
THINNED = (FUSED, LINEAR)


def name_code() -> str:
    """What decides the answers of a run beside the run itself: code, and the versions of what fits with it."""
    return "-".join([code_digest(__name__), *(f"{name} {version(name)}" for name in ("scikit-learn", "scipy"))])


def keep_answers(folder: Path, data: Dataset) -> None:
    """See that the answers of a finished run are in its folder.

    Args:
        data: of its fold, as the protocol drew it, with all labels; where it is, is computed.
    """
    code = name_code()
    if not are_kept(folder, code):
        run = load_run(folder)
        run.model.to(data.emotion.device)
        write_answers(folder, ask(run, data), code)


def ask(run: TrainedModel, data: Dataset) -> Answers:
    """Ask a run of the held-out clips of its fold, of validation for its temperature, and of training clips for speakers."""
    test, fused = data.rows("test"), run.config["variant"] == FUSED
    looks, moved = look_over_time(run, data, test) if fused and len(test) else (pl.DataFrame(schema=LOOKS), [])
    return Answers(
        clips=_predict_clips(run, data, test),
        tokens=predict_tokens(run, data, test) if len(test) else None,
        looks=looks,
        paths=reduce_paths(moved),
        temperature=find_temperature(run, data),
        speakers=ask_speakers(run, data) if fused else {"reason": "It is not the fused model."},
    )


def _predict_clips(run: TrainedModel, data: Dataset, test: Tensor) -> pl.DataFrame:
    if not len(test):
        return pl.DataFrame(schema={"id": pl.String(), "kept": pl.String()})
    kept = subsets(run.streams) if run.config["variant"] in THINNED else [frozenset(run.streams)]
    parts = [
        pl.DataFrame(predict_rows(run, data, test, frozenset(run.streams) - names)).with_columns(kept=pl.lit(label_kept(names)))
        for names in kept
    ]
    return pl.concat(parts)

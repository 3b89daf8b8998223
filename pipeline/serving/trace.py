"""The course of valence and arousal over a film, as a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage.atomic import write_text

from .prediction import Prediction


def check_trace(prediction: Prediction) -> None:
    """Raise unless there is something over time.

    Raises:
        UserError: the model predicts per clip, or the stream along which it predicts is missing.
    """
    if not prediction.trace:
        raise UserError(
            f"{prediction.path} has no course over time: the model predicts per clip (train with task=frames), "
            "or the stream along which it predicts is missing."
        )


def write_trace(path: Path, prediction: Prediction) -> None:
    """CSV: `time` (seconds, the middle of each token), the dimensions in [-1, 1], as labels are, and `sd_<dimension>` where the
    model says how sure it is.

    Raises:
        UserError: see `check_trace`.
    """
    check_trace(prediction)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = {**prediction.trace, **{f"sd_{name}": values for name, values in prediction.spread.items()}}
    writer.writerow(["time", *columns])
    for place, (start, end) in enumerate(prediction.times.tolist()):
        writer.writerow([f"{(start + end) / 2:.3f}", *(f"{float(values[place]):.6f}" for values in columns.values())])
    write_text(path, text.getvalue())

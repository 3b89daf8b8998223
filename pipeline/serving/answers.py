"""Answers about many files: as a table, as JSON lines, and as a line each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.storage.atomic import write_text
from pipeline.storage.feature_store import Status

from .files import Answer
from .show import plain


def write_table(path: Path, answers: Sequence[Answer], classes: Sequence[str], dimensions: Sequence[str]) -> None:
    """CSV, a row per file: `file`, `seconds`, `emotion`, `p_<class>`, dimensions in [-1, 1], `heard`, `without` (streams the
    file lacks), `reason` and `detail` where there is no prediction.

    Args:
        classes, dimensions: what the model predicts, in its order.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*(["emotion", *(f"p_{name}" for name in classes)] if classes else []), *dimensions]
    writer.writerow(["file", "seconds", *columns, "heard", "without", "reason", "detail"])
    for answer in answers:
        found = answer.prediction
        if found is None:
            writer.writerow([answer.medium.name, "", *("" for _ in columns), "", "", answer.reason, answer.detail])
            continue
        chances = [next(iter(found.emotions)), *(f"{found.emotions[name]:.6f}" for name in classes)] if classes else []
        values = [f"{found.dimensions[name]:.6f}" for name in dimensions]
        without = "; ".join(f"{name}: {one.reason}" for name, one in found.streams.items() if one.status != Status.OK)
        writer.writerow([answer.medium.name, f"{found.duration:.3f}", *chances, *values, found.heard or "", without, "", ""])
    write_text(path, text.getvalue())


def name_file(answer: Answer, suffix: str) -> str:
    """A file name of its own for each file: `films/a.mp4` → `films_a.mp4.csv`."""
    return answer.medium.name.strip("./").replace("/", "_") + suffix


def format_line(answer: Answer) -> str:
    """`films/a.mp4  joy 83%  valence +0.41`, or why there is none."""
    if (found := answer.prediction) is None:
        return f"{answer.medium.name}  {answer.reason}: {answer.detail}"
    best = next(iter(found.emotions.items()), None)
    said = [f"{best[0]} {best[1]:.0%}"] if best else []
    return "  ".join([answer.medium.name, *said, *(f"{name} {value:+.2f}" for name, value in found.dimensions.items())])


def format_json(answer: Answer) -> str:
    """The answer as one line of JSON."""
    if answer.prediction is None:
        value: dict = {"path": answer.medium.name, "reason": answer.reason, "detail": answer.detail}
    else:
        value = plain(answer.prediction) | {"path": answer.medium.name}
    return json.dumps(value, ensure_ascii=False)

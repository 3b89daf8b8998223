"""Questions with answers, made of a manifest and, where there is one, a file of records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import CorpusError, ParamsError
from pipeline.storage import tables

from .settings import Settings, Task

#: What a record may call its clip.
NAMES = ("id", "video_name", "video_id", "video", "name")


@dataclass(frozen=True)
class Example:
    """One question about one clip.

    Attributes:
        task: its name. answer: in words. label: place of the answer in the classes, -1 where any text is an answer.
        weight: of the example in the loss.
    """

    clip: str
    task: str
    answer: str
    label: int
    weight: float = 1.0


def read_records(path: str | Path) -> dict[str, dict[str, Any]]:
    """Clip → what a file says of it: an object by clip, or a list of records that name theirs.

    Raises:
        CorpusError: it is no such file.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"records {path} cannot be read ({' '.join(str(error).split())[:120]}).") from error
    if isinstance(value, dict):
        value = value.get("annotations", value)
    pairs = (
        list(value.items()) if isinstance(value, dict) else [(None, one) for one in (value if isinstance(value, list) else [])]
    )
    found: dict[str, dict[str, Any]] = {}
    for number, (key, record) in enumerate(pairs, 1):
        if not isinstance(record, dict):
            raise CorpusError(f"records {path}, record {number}: not an object but {type(record).__name__}.")
        name = key or next((str(record[one]) for one in NAMES if record.get(one)), None)
        if name is None:
            raise CorpusError(f"records {path}, record {number}: no name ({', '.join(NAMES)}).")
        # A clip may have a record for each task.
        found.setdefault(name, {}).update(record)
    if not found:
        raise CorpusError(f"records {path} holds no records.")
    return found


def find_answer(row: Mapping[str, Any], task: Task, records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What a clip's record, its `labels` or the manifest says under `task.answer`; None where it is nothing or no text."""
    clip = str(row["id"])
    record = records.get(clip) or records.get(clip.rpartition("/")[2]) or {}
    said = json.loads(row["labels"]) if row.get("labels") else {}
    for source in (record, said, row if task.answer in tables.SCHEMA else {}):
        value = source.get(task.answer)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def make_examples(
    table: pl.DataFrame, tasks: Mapping[str, Task], classes: Sequence[str], records: Mapping[str, Mapping[str, Any]]
) -> list[Example]:
    """Of every clip and task that has an answer; one that should be a class and is none gives no example."""
    places = {name.lower(): i for i, name in enumerate(classes)}
    found = []
    for row in table.iter_rows(named=True):
        for name, task in tasks.items():
            answer = find_answer(row, task, records)
            if answer is None:
                continue
            label = places.get(answer.lower().rstrip("."), -1) if task.labels else -1
            if not task.labels or label >= 0:
                found.append(Example(str(row["id"]), name, classes[label] if task.labels else answer, label))
    return found


def weigh(examples: Sequence[Example]) -> list[Example]:
    """Those whose answers are classes count N / (K n_k), task by task, which is 1 on average; others 1.

    >>> [one.weight for one in weigh([Example("a", "e", "joy", 0), Example("b", "e", "joy", 0), Example("c", "e", "fear", 1)])]
    [0.75, 0.75, 1.5]
    """
    counts = Counter((one.task, one.label) for one in examples if one.label >= 0)
    every, kinds = Counter(one.task for one in examples if one.label >= 0), Counter(task for task, _ in counts)
    return [
        replace(one, weight=every[one.task] / (kinds[one.task] * counts[one.task, one.label])) if one.label >= 0 else one
        for one in examples
    ]


@dataclass(frozen=True)
class Split:
    """Examples of a fold; of test clips there are none, their answers are nobody's while something learns."""

    train: list[Example]
    val: list[Example]


def split_examples(
    table: pl.DataFrame, settings: Settings, classes: Sequence[str], records: Mapping[str, Mapping[str, Any]]
) -> Split:
    """
    Args:
        table: with a column `role`.

    Raises:
        ParamsError: no training clip has an answer to a task.
    """
    parts = {
        role: make_examples(table.filter(pl.col("role") == role), settings.tasks, classes, records) for role in ("train", "val")
    }
    there = {one.task for one in parts["train"]}
    for name in dict.fromkeys(task for one in settings.rounds for task in one.tasks):
        if name not in there:
            raise ParamsError(
                f"tasks.{name}: no training clip has an answer under {settings.tasks[name].answer!r}"
                + (f" that is one of {', '.join(classes)}." if settings.tasks[name].labels else "; see tasks and records.")
            )
    return Split(weigh(parts["train"]) if settings.weighted else parts["train"], parts["val"])

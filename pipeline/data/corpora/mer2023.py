"""MER2023: films with an emotion and a valence, as tables or as list files (Lian et al. 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.errors import CorpusError
from pipeline.params import Positive

from . import folder, table
from .adapter import Adapter, TableOptions, Tables
from .films import film_columns, find_films

EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
#: Stands for "no valence" in the lists.
NO_VALENCE = -10.0
LAYOUT = (
    "{train,test1,test2,test3}-label.csv (name, discrete, valence) beside train/, test1/, … as distributed, or lists "
    "named {train,val,test}*.txt (`<name> <frames> <label> <valence or -10>`) with films anywhere below; "
    "transcription*.csv (name, sentence) when there is one"
)


def parse_line(text: str, scale: float) -> tuple[str, str, float | None]:
    """(name, emotion, valence in [-1, 1] or None) of a list line.

    Raises:
        ValueError: it has not four fields, or one of them is not what it should be.
    """
    fields = text.split()
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} fields instead of name, frames, label, valence")
    name, count, emotion, valence = fields
    int(count)
    return name, *_truth(emotion, valence, scale)


def _truth(emotion: str, valence: str, scale: float) -> tuple[str, float | None]:
    if emotion not in EMOTIONS:
        raise ValueError(f"label {emotion!r} is not of MER2023")
    if not valence or float(valence) == NO_VALENCE:
        return emotion, None
    value = table.number(valence, -scale, scale)
    return emotion, None if value is None else round(value / scale, 9)


def _row(row: dict[str, str], scale: float) -> tuple[str, str, float | None]:
    return row["name"], *_truth(row["discrete"], row.get("valence", ""), scale)


def _lines(path: Path, scale: float, encoding: str | None) -> Iterator[tuple[int, Callable[[], tuple[str, str, float | None]]]]:
    """(line number, what reads that line) of a list or a table."""
    if path.suffix == ".csv":
        for number, row in table.rows_of(path, ("name", "discrete"), encoding=encoding):
            yield number, partial(_row, row, scale)
    else:
        for number, text in enumerate(table.text_of(path, encoding).splitlines(), 1):
            if text.strip():
                yield number, partial(parse_line, text, scale)


def _spoken(root: Path, encoding: str | None) -> dict[str, str]:
    """Name → what is said, of the transcript that the organisers' baseline writes; {} without one."""
    found = sorted(root.rglob("transcription*.csv"))
    if not found:
        return {}
    rows = table.rows_of(found[0], ("name", "sentence"), encoding=encoding)
    return {row["name"]: row["sentence"] for _, row in rows if row["sentence"]}


class Mer2023(Adapter):
    """Adapter of MER2023."""

    title = "MER2023, multimodal emotion recognition challenge"
    licence = "under EULA from the organisers"
    homepage = "http://merchallenge.cn/mer2023"
    layout = LAYOUT
    classes = EMOTIONS
    scale = (-5.0, 5.0)

    class Options(TableOptions):
        #: Valence of the lists runs from -scale to scale.
        scale: Positive = 5.0
        #: `none`: the lists alone.
        media: Literal["video", "none"] = "video"

    options: Options

    def read(self) -> Tables:
        """One clip per line of the tables or lists; the file's name says the split."""
        options = self.options
        root = self.root
        lists = [
            (path, split)
            for path in sorted([*root.rglob("*-label.csv"), *root.rglob("*.txt")])
            for start, split in (("train", "train"), ("val", "val"), ("test", "test"))
            if path.name.lower().startswith(start)
        ]
        if not lists:
            raise CorpusError(f"{root} holds no list of MER2023. Expected {LAYOUT}.")
        result = Tables(clips=[])
        films, spoken = find_films(root, options.media, result.problems), _spoken(root, options.encoding)
        for path, split in lists:
            for number, read in _lines(path, options.scale, options.encoding):
                try:
                    name, emotion, valence = read()
                except (ValueError, TypeError) as error:
                    result.problems.append(folder.problem(None, path.name, "row", f"line {number}: {error}"))
                    continue
                result.clips.append(
                    {
                        "id": f"mer2023/{split}/{name}",
                        "corpus": "mer2023",
                        "split": split,
                        "language": "zh",
                        "emotion": emotion,
                        "valence": valence,
                        "text": spoken.get(name),
                        **film_columns(films, name, options.media, path.name.removesuffix("-label.csv")),
                    }
                )
        result.notes["clips"] = dict(sorted(Counter(clip["split"] for clip in result.clips).items()))
        return result

"""MER2023: films with an emotion and a valence, as tables or as list files (Lian et al. 2023)."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.errors import CorpusError, ParamsError, one_of
from pipeline.params import Positive

from . import folder, table
from .adapter import Adapter, TableOptions, Tables
from .films import film_columns, find_films

log = logging.getLogger(__name__)

EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
#: Stands for "no valence" in the lists.
NO_VALENCE = -10.0
#: Whose clips a table or list holds, by the beginning of its name. Each test set is one of the challenge's tracks.
_PART = re.compile(r"(train|val|test\d*)", re.IGNORECASE)
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
        #: Test sets to test on, e.g. [test3]; empty: the first there is. Their figures are not to be mixed.
        test: tuple[str, ...] = ()
        #: `none`: the lists alone.
        media: Literal["video", "none"] = "video"

    options: Options

    def read(self) -> Tables:
        """One clip per line of the tables or lists; the file's name says which part of the corpus, which becomes `session`.

        Raises:
            CorpusError: no table or list, or one that is damaged.
            ParamsError: a test set that is not there.
        """
        options, root = self.options, self.root
        lists = [
            (path, match[1].lower())
            for path in sorted([*root.rglob("*-label.csv"), *root.rglob("*.txt")])
            if (match := _PART.match(path.name))
        ]
        if not lists:
            raise CorpusError(f"{root} holds no list of MER2023. Expected {LAYOUT}.")
        result = Tables(clips=[])
        tested = self._test_sets(sorted({part for _, part in lists if part.startswith("test")}), result)
        films, spoken = find_films(root, options.media, result.problems), _spoken(root, options.encoding)
        for path, part in lists:
            if part.startswith("test") and part not in tested:
                continue
            for number, read in _lines(path, options.scale, options.encoding):
                try:
                    name, emotion, valence = read()
                except (ValueError, TypeError) as error:
                    result.problems.append(folder.problem(None, path.name, "row", f"line {number}: {error}"))
                    continue
                result.clips.append(
                    {
                        "id": f"mer2023/{part}/{name}",
                        "corpus": "mer2023",
                        "split": "test" if part in tested else part,
                        "session": part,
                        "language": "zh",
                        "emotion": emotion,
                        "valence": valence,
                        "text": spoken.get(name),
                        "where": f"{path.name}, line {number}",
                        **film_columns(films, name, options.media, part, path.parent.name),
                    }
                )
        result.notes["clips"] = dict(sorted(Counter(clip["session"] for clip in result.clips).items()))
        return result

    def _test_sets(self, there: list[str], result: Tables) -> tuple[str, ...]:
        for name in self.options.test:
            if name not in there:
                raise one_of("test set of corpus.options.test", name, there, ParamsError)
        tested = self.options.test or tuple(there[:1])
        if left := [name for name in there if name not in tested]:
            result.notes["test sets left out, which corpus.options.test chooses"] = left
            log.warning("mer2023: tested on %s; corpus.options.test chooses %s", ", ".join(tested), ", ".join(left))
        return tested

"""CH-SIMS v1/v2, CMU-MOSI and CMU-MOSEI in the common layout: one `label.csv`, films in `Raw/<video>/<clip>.mp4`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pipeline.data.turns import STAYS, read_left, without_labels
from pipeline.errors import CorpusError

from . import cells, folder, table
from .adapter import Adapter, TableOptions, Tables
from .films import find_films

TABLES = ("label.csv", "meta.csv", "labels.csv")
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
SPLITS = {"train": "train", "valid": "val", "val": "val", "dev": "val", "test": "test"}
POLARITIES = ("negative", "neutral", "positive")
#: The 7-class view: round(3 x) of a sentiment x in [-1, 1], -3..3.
SEVEN = ("strongly negative", "negative", "weakly negative", "neutral", "weakly positive", "positive", "strongly positive")
LAYOUT = "label.csv (video_id, clip_id, text, label, …, annotation, mode) and Raw/<video_id>/<clip_id>.mp4"


def seven(value: float) -> str:
    """Degree of a sentiment in [-1, 1]; halves go away from zero, as a person rounds."""
    return SEVEN[3 + int(abs(3 * value) + 0.5 + 1e-9) * (1 if value >= 0 else -1)]


def polarity_of(score: float) -> str:
    """Of its sign."""
    return POLARITIES[1 + (score > 0) - (score < 0)]


def _film(root: Path, video: str, clip: str) -> str | None:
    """Clip numbers lose their leading zeros in spreadsheets: the padded name is looked for too. None where there is none."""
    names = dict.fromkeys([clip, clip.zfill(4), clip.zfill(5)])
    for name in names:
        for suffix in (".mp4", ".avi", ".mkv", ".wav"):
            relative = f"Raw/{video}/{name}{suffix}"
            if folder.inside(root, relative) and (root / relative).is_file():
                return relative
    return None


#: Columns of the table that say what was said where, and when; all others are labels.
_SPOKEN = frozenset(("video_id", "clip_id", "text", "mode"))
_TIMES = frozenset(("start", "start_time", "end", "end_time"))


def _media(root: Path, row: dict[str, str], whole: dict[str, str]) -> dict:
    """The clip's own film, else its cut of the whole video where the table says when."""
    film = _film(root, row["video_id"], row["clip_id"])
    if film is None and row["video_id"] in whole:
        start, end = (
            cells.seconds(next((row[name] for name in names if row.get(name)), ""))
            for names in (("start", "start_time"), ("end", "end_time"))
        )
        if start is not None and end is not None:
            film = whole[row["video_id"]]
            return {"video": film, "audio": film, "start": start, "end": end}
    film = film or f"Raw/{row['video_id']}/{row['clip_id']}.mp4"
    return {"video": film, "audio": film}


class SentimentCorpus(Adapter):
    """What the corpora of this layout share.

    Attributes:
        language: of the transcripts.
    """

    layout = LAYOUT
    classes: ClassVar[tuple[str, ...]] = POLARITIES
    language: ClassVar[str]

    class Options(TableOptions):
        #: What `emotion` holds: nothing, the polarity (3), or the 7 degrees.
        view: Literal["none", "three", "seven"] = "none"
        media: Literal["video", "none"] = "video"

    options: Options

    def read(self) -> Tables:
        """One clip per row. The sentiment score becomes `valence`, its sign (or the annotation) `sentiment`.

        Raises:
            CorpusError: no table, a missing column, or a damaged table.
        """
        path = next((self.root / name for name in TABLES if (self.root / name).is_file()), None)
        if path is None:
            raise CorpusError(f"{self.root} holds no label.csv. Expected {self.layout}.")
        result = Tables(clips=[])
        self._read_table(path, result)
        result.notes |= self.count(result.clips)
        return result

    @staticmethod
    def count(clips: list[dict]) -> dict[str, object]:
        """For the notes."""
        return {
            "rows without a label": sum(clip.get("target") is False for clip in clips),
            "clips": dict(Counter(clip["split"] or "without a split" for clip in clips)),
            "sentiments": dict(sorted(Counter(clip["sentiment"] for clip in clips if clip["sentiment"]).items())),
            "emotions": dict(sorted(Counter(clip["emotion"] for clip in clips if clip["emotion"]).items())),
        }

    def _read_table(self, path: Path, result: Tables) -> None:
        films = find_films(self.root, self.options.media, [])
        for line, row in table.rows_of(path, COLUMNS, encoding=self.options.encoding):
            read = partial(self._clip, films=films)
            try:
                clip: dict | None = read(row)
            except (ValueError, CorpusError) as error:
                unlabelled = dict.fromkeys(row.keys() - _SPOKEN - _TIMES, "")
                clip = read_left(read, row, unlabelled, unlabelled | dict.fromkeys(_TIMES, ""))
                result.problems.append(folder.problem(None, path.name, "row", f"line {line}: {error}{STAYS if clip else ''}"))
            if clip:
                result.clips.append(clip | {"where": f"{path.name}, line {line}"})

    def _clip(self, row: dict[str, str], films: dict[str, str]) -> dict:
        score = table.number(row["label"], *self.scale)
        if row["mode"].lower() not in SPLITS:
            raise ValueError(f"mode {row['mode']!r} is not train, valid or test")
        if not row["video_id"] or not row["clip_id"]:
            raise ValueError("video_id or clip_id is empty")
        polarity = row.get("annotation", "").lower() or None
        if score is not None and polarity not in (None, *POLARITIES):
            raise ValueError(f"annotation {row['annotation']!r} is not Negative, Neutral or Positive")
        single = {
            f"sentiment_{name}": table.number(row.get(f"label_{letter}", ""), *self.scale)
            for letter, name in (("T", "text"), ("A", "audio"), ("V", "video"))
        }
        clip = {
            "id": f"{self.name}/{row['video_id']}/{row['clip_id']}",
            "corpus": self.name,
            "split": SPLITS[row["mode"].lower()],
            "text": table.mend(row["text"]),
            "dialogue": row["video_id"],
            "turn": int(row["clip_id"]) if row["clip_id"].isascii() and row["clip_id"].isdigit() else None,
        }
        media = _media(self.root, row, films) if self.options.media == "video" else {}
        return self.label(clip | media, score, self.read_emotions(row), single, polarity)

    def read_emotions(self, row: dict[str, str]) -> dict[str, float]:
        """Intensities by emotion, of a row of the table; {} where the corpus has none.

        Raises:
            ValueError: a number that is none.
        """
        return {}

    def label(
        self,
        clip: dict,
        score: float | None,
        emotions: dict[str, float],
        more: dict[str, float | None],
        polarity: str | None = None,
    ) -> dict:
        """The clip with its labels; without a score and emotions, as a turn that is no target."""
        clip |= {"language": self.language}
        if score is None and not emotions:
            return without_labels(clip)
        sentiment = None if score is None else polarity or polarity_of(score)
        value = None if score is None else round(score / self.scale[1], 9)
        return clip | {
            "sentiment": sentiment,
            "valence": value,
            "emotion": self.view(sentiment, value, emotions),
            "labels": table.labels(**more, **emotions),
        }

    def view(self, sentiment: str | None, value: float | None, emotions: dict[str, float]) -> str | None:
        """What stands under `emotion`."""
        if self.options.view == "none" or value is None:
            return None
        return sentiment if self.options.view == "three" else seven(value)

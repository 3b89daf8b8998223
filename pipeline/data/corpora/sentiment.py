"""CH-SIMS v1/v2, CMU-MOSI and CMU-MOSEI in the common layout: one `label.csv`, films in `Raw/<video>/<clip>.mp4`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, TableOptions, Tables

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


def _film(root: Path, video: str, clip: str) -> str:
    """Clip numbers lose their leading zeros in spreadsheets: the padded name is looked for too."""
    names = dict.fromkeys([clip, clip.zfill(4), clip.zfill(5)])
    for name in names:
        for suffix in (".mp4", ".avi", ".mkv", ".wav"):
            relative = f"Raw/{video}/{name}{suffix}"
            if folder.inside(root, relative) and (root / relative).is_file():
                return relative
    return f"Raw/{video}/{clip}.mp4"


class SentimentCorpus(Adapter):
    """What the corpora of this layout share.

    Attributes:
        language: of the transcripts.
    """

    layout = LAYOUT
    classes = POLARITIES
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
        options = self.options
        root = self.root
        path = next((root / name for name in TABLES if (root / name).is_file()), None)
        if path is None:
            raise CorpusError(f"{root} holds no label.csv. Expected {LAYOUT}.")
        result = Tables(clips=[])
        unlabelled = 0
        for line, row in table.rows_of(path, COLUMNS, encoding=options.encoding):
            try:
                clip = self._clip(row)
            except (ValueError, CorpusError) as error:
                result.problems.append(folder.problem(None, path.name, "row", f"line {line}: {error}"))
                continue
            unlabelled += clip["target"] is False
            if options.media == "video":
                film = _film(root, row["video_id"], row["clip_id"])
                clip |= {"video": film, "audio": film}
            result.clips.append(clip)
        result.notes = {
            "rows without a label": unlabelled,
            "clips": dict(Counter(c["split"] for c in result.clips)),
            "sentiments": dict(sorted(Counter(c["sentiment"] for c in result.clips if c["sentiment"]).items())),
        }
        return result

    def _clip(self, row: dict[str, str]) -> dict:
        score = table.number(row["label"], *self.scale)
        if row["mode"].lower() not in SPLITS:
            raise ValueError(f"mode {row['mode']!r} is not train, valid or test")
        if not row["video_id"] or not row["clip_id"]:
            raise ValueError("video_id or clip_id is empty")
        clip = {
            "id": f"{self.name}/{row['video_id']}/{row['clip_id']}",
            "corpus": self.name,
            "split": SPLITS[row["mode"].lower()],
            "text": table.mend(row["text"]),
            "language": self.language,
            "dialogue": row["video_id"],
            "turn": int(row["clip_id"]) if row["clip_id"].isascii() and row["clip_id"].isdigit() else None,
        }
        if score is None:
            return without_labels(clip)
        polarity = row.get("annotation", "").lower() or polarity_of(score)
        if polarity not in POLARITIES:
            raise ValueError(f"annotation {row['annotation']!r} is not Negative, Neutral or Positive")
        single = {
            name: table.number(row.get(f"label_{letter}", ""), *self.scale)
            for letter, name in (("T", "text"), ("A", "audio"), ("V", "video"))
        }
        return clip | {
            "sentiment": polarity,
            "valence": round(score / self.scale[1], 9),
            "emotion": self.view(polarity, score / self.scale[1]),
            "labels": table.labels(**{f"sentiment_{name}": v for name, v in single.items()}),
        }

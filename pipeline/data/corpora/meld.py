"""MELD: 13,708 utterances of the series Friends, 7 emotions, 3 sentiments (Poria et al. 2019).

Known damage of the distribution (declare-lab/MELD issues 9, 20, 22, 25, 27, 30, 39) is met here: clip
names repeat across the splits, so a name is only ever looked up in its own split's folder; the lists
below name clips that are corrupt, absent, or cut minutes too long; surplus media without annotation
are listed; apostrophes lost to encodings are put back.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.data import turns
from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, TableOptions, Tables

log = logging.getLogger(__name__)

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
SENTIMENTS = ("neutral", "positive", "negative")

#: Split → annotation table, names of the media folder (the public archive's, then common renamings).
SPLITS = {
    "train": ("train_sent_emo.csv", ("train_splits", "train")),
    "val": ("dev_sent_emo.csv", ("dev_splits_complete", "dev_splits", "dev")),
    "test": ("test_sent_emo.csv", ("output_repeated_splits_test", "test_splits", "test")),
}

#: (split, dialogue, utterance) → why; damaged as distributed.
KNOWN = {
    ("train", 125, 3): "the film is corrupt as distributed",
    ("val", 110, 7): "the film is absent from the distribution",
    ("test", 38, 4): "cut minutes too long as distributed",
    ("test", 220, 0): "cut minutes too long as distributed",
    ("train", 309, 0): "badly cut as distributed",
    ("train", 793, 0): "badly cut as distributed",
}

COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
LAYOUT = (
    "{train,dev,test}_sent_emo.csv beside train_splits/, dev_splits_complete/, output_repeated_splits_test/ "
    "with dia{D}_utt{U}.mp4"
)

_NAME = re.compile(r"dia(\d+)_utt(\d+)\.mp4", re.ASCII)
_TIME = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)[,.](\d{1,3})", re.ASCII)
#: A question mark between letters, before a verb ending, is a lost apostrophe: "it?s", "don?t".
_LOST = re.compile(r"(?<=[A-Za-z])\?(?=(?:s|t|m|d|re|ve|ll)\b)")


def seconds(stamp: str) -> float:
    """`hh:mm:ss,ms` in seconds.

    Raises:
        ValueError: it is no such time stamp.
    """
    match = _TIME.fullmatch(stamp.strip())
    if not match:
        raise ValueError(f"{stamp!r} is not a time hh:mm:ss,ms")
    hours, minutes, secs, fraction = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(secs) + int(fraction.ljust(3, "0")) / 1000


def repaired(text: str) -> str:
    """An utterance with its characters put back: UTF-8 read as Windows-1252, `?` for an apostrophe."""
    return _LOST.sub("’", table.mend(text)).strip()


def _places(root: Path, split: str) -> list[Path]:
    """Where the parts of a split may lie: the archives unpack into a folder of their own name, or of the split's, or neither."""
    inner = {"train": ("train",), "val": ("dev", "val"), "test": ("test",)}[split]
    return [base / sub for base in (root, root / "MELD.Raw") for sub in ("", *inner)]


def _table_of(root: Path, split: str) -> Path | None:
    name, folders = SPLITS[split]
    # The archive keeps the training table inside the folder train/.
    beside = (root / sub for sub in (*folders, "annotations", "data/MELD"))
    return next((place / name for place in (*_places(root, split), *beside) if (place / name).is_file()), None)


def _media_of(root: Path, split: str) -> Path:
    _, names = SPLITS[split]
    found = (place / name for name in names for place in _places(root, split))
    return next((folder for folder in found if folder.is_dir() and any(folder.glob("*.mp4"))), root / names[0])


def _find_media(root: Path, splits: Iterable[str], wanted: str) -> dict[str, Path | None]:
    """Split → the folder of its films, None where the tables alone are read."""
    found: dict[str, Path | None] = {split: _media_of(root, split) for split in splits}
    there = any(folder is not None and any(folder.glob("*.mp4")) for folder in found.values())
    return found if wanted == "video" or (wanted == "auto" and there) else dict.fromkeys(found)


def _split(path: Path, split: str, root: Path, media: Path | None, options: Meld.Options) -> tuple[list[dict], list[dict], int]:
    clips, problems, mended = [], [], 0
    for line, row in table.rows_of(path, COLUMNS, encoding=options.encoding):
        read = partial(_clip, split=split, root=root, media=media)
        try:
            clip = read(row)
        except ValueError as error:
            left = turns.read_left(read, row, dict.fromkeys(("StartTime", "EndTime"), "00:00:00,000"))
            problems.append(folder.problem(None, path.name, "row", f"line {line}: {error}{turns.STAYS if left else ''}"))
            clips += [left] if left else []
            continue
        for label, names in (("emotion", EMOTIONS), ("sentiment", SENTIMENTS)):
            if clip.get("target", True) and clip[label] not in names:
                detail = f"line {line}: {label} {row[label.title()]!r} is not of MELD; the turn stays as context"
                problems.append(folder.problem(None, path.name, "row", detail))
                clip = turns.without_labels(clip)
        why = KNOWN.get((split, int(row["Dialogue_ID"]), clip["turn"]))
        if why and media is not None and options.known == "quarantine":
            problems.append(folder.problem(clip["id"], clip["video"], "known", why))
            clips += turns.left_of([clip])
            continue
        mended += clip["text"] != row["Utterance"]
        clips.append(clip)
    return clips, problems, mended


def _clip(row: dict[str, str], split: str, root: Path, media: Path | None) -> dict:
    dialogue, utterance = int(row["Dialogue_ID"]), int(row["Utterance_ID"])
    emotion, sentiment = row["Emotion"].lower(), row["Sentiment"].lower()
    film = None if media is None else f"{media.relative_to(root).as_posix()}/dia{dialogue}_utt{utterance}.mp4"
    length = round(seconds(row["EndTime"]) - seconds(row["StartTime"]), 3)
    name = {"val": "dev"}.get(split, split)
    return {
        "id": f"meld/{name}/dia{dialogue}_utt{utterance}",
        "corpus": "meld",
        "split": split,
        "video": film,
        "audio": film,
        "text": repaired(row["Utterance"]),
        "language": "en",
        "speaker": table.mend(row["Speaker"]),
        "dialogue": f"{name}/dia{dialogue}",
        "turn": utterance,
        "emotion": emotion,
        "sentiment": sentiment,
        # A few rows end before they begin: nothing can be said about their length.
        "expected": length if length > 0 else None,
        "session": _episode(row),
    }


def _episode(row: dict[str, str]) -> str | None:
    season, episode = row.get("Season", ""), row.get("Episode", "")
    return f"s{int(season):02}e{int(episode):02}" if season.isdigit() and episode.isdigit() else None


def _surplus(root: Path, media: Path, split: str, known: set[tuple[str, int]]) -> list[dict]:
    if not media.is_dir():
        return []
    problems: list[dict] = []
    name = {"val": "dev"}.get(split, split)
    for path in folder.files(media, (".mp4",), problems):
        match = _NAME.fullmatch(path)
        if not match or (f"{name}/dia{int(match[1])}", int(match[2])) not in known:
            problems.append(
                folder.problem(None, f"{media.relative_to(root).as_posix()}/{path}", "surplus", f"no row of {SPLITS[split][0]}")
            )
    return problems


def _shared_speakers(clips: list[dict]) -> dict[str, object]:
    by_split: dict[str, set] = defaultdict(set)
    for clip in clips:
        by_split[clip["split"]].add(clip["speaker"])
    shared = by_split["train"] & by_split["test"]
    test = [clip for clip in clips if clip["split"] == "test"]
    affected = sum(clip["speaker"] in shared for clip in test)
    return {"speakers": len(shared), "test utterances": affected, "share": round(affected / len(test), 4) if test else 0.0}


class Meld(Adapter):
    """Adapter of MELD."""

    title = "MELD, Multimodal EmotionLines Dataset"
    licence = "GPL-3.0 (annotation); the films are of the series Friends, for research only"
    homepage = "https://affective-meld.github.io"
    layout = LAYOUT
    classes = EMOTIONS
    checked = "the train and dev tables (counts, classes, speakers, times); no film"

    class Options(TableOptions):
        #: `video`: the films; `none`: the tables alone (text only); `auto`: the films, or where there is none the tables alone.
        media: Literal["auto", "video", "none"] = "auto"
        #: Table that is tested on: `test`, with `dev` to select on; or `dev`, and the test table is not read.
        held_out: Literal["test", "dev"] = "test"
        #: Clips on the list of known damage: examine them like any other, or set them aside unseen.
        known: Literal["examine", "quarantine"] = "examine"

    options: Options

    def read(self) -> Tables:
        """Read the tables that are there (at least one) and the films beside them.

        Raises:
            CorpusError: no table, a column is missing, or a table is damaged.
        """
        options = self.options
        root = self.root
        result = Tables(clips=[])
        wanted = SPLITS if options.held_out == "test" else ("train", "val")
        found = {split: path for split in wanted if (path := _table_of(root, split))}
        if not found:
            raise CorpusError(f"{root} holds no table of MELD. Expected {LAYOUT}.")
        films = _find_media(root, found, options.media)
        alone = options.media == "auto" and not any(films.values())
        if alone:
            log.warning("%s holds no film of MELD: the tables are read alone, for what is said (corpus.options.media)", root)
        repaired_texts = 0
        for split, path in found.items():
            media = films[split]
            clips, problems, mended = _split(path, split, root, media, options)
            repaired_texts += mended
            result.clips += clips
            result.problems += problems
            if media is not None:
                result.problems += _surplus(root, media, split, {(c["dialogue"], c["turn"]) for c in clips})
        if options.held_out == "dev":
            for clip in result.clips:
                clip["split"] = "test" if clip["split"] == "val" else clip["split"]
        absent = [split for split in wanted if split not in found]
        result.notes.update(
            {
                "utterances": dict(Counter(clip["split"] for clip in result.clips)),
                "texts repaired": repaired_texts,
                "speakers met in train and test": _shared_speakers(result.clips),
                **({"splits without a table": absent} if absent else {}),
                **({"films": "none: the tables were read alone"} if alone else {}),
            }
        )
        return result

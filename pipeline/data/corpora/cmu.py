"""CMU-MOSI and CMU-MOSEI as CMU distributes them: whole videos, and computational sequences that say when and what."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import CorpusError

from . import folder, table
from .sequences import Sequence, read_sequence, words_between

#: Columns of the labels by how many there are: MOSI's, MOSEI's emotions alone, MOSEI's.
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
_COLUMNS = {1: ("sentiment",), 6: EMOTIONS, 7: ("sentiment", *EMOTIONS)}
LAYOUT = (
    "CMU's package: `*Labels*.csd`, videos as <video>.mp4 (and sounds as <video>.wav) in any folder, `*std_folds.py` of "
    "CMU's SDK for the splits, the words as transcripts (<video>.txt, <video>.annotprocessed) or `*TimestampedWords*.csd`"
)
_FOLDS = {"standard_train_fold": "train", "standard_valid_fold": "val", "standard_test_fold": "test"}


def find_labels(root: Path) -> list[Path]:
    """The sequences that hold labels."""
    return sorted(root / path for path in folder.files(root, (".csd",)) if "label" in PurePosixPath(path).name.lower())


def read_segments(root: Path, name: str, encoding: str | None, problems: list[dict], notes: dict[str, object]) -> Iterator[dict]:
    """Segments of the videos in the order of time: clip columns, and under `values` what was annotated by name.

    Several sequences of labels are joined by video and time.

    Raises:
        CorpusError: a file of labels, words or splits that cannot be read.
    """
    labels: dict[str, dict[tuple[float, float], dict[str, float]]] = {}
    for path in find_labels(root):
        for video, (times, values) in read_sequence(path, problems).items():
            if values.shape[1] not in _COLUMNS or values.dtype.kind not in "fiu":
                raise CorpusError(
                    f"{path}: {values.shape[1]} columns of labels; known are 1 (sentiment), 6 and 7 (with emotions)."
                )
            for (start, end), row in zip(times.tolist(), values.tolist(), strict=True):
                segment = labels.setdefault(video, {}).setdefault((round(start, 3), round(end, 3)), {})
                segment |= dict(zip(_COLUMNS[len(row)], row, strict=True))
    splits, media, words = _read_splits(root), _find_media(root, problems), _read_words(root, problems)
    outside = 0
    for video, segments in sorted(labels.items()):
        if splits and video not in splits:
            outside += 1
            problems.append(folder.problem(None, media["video"].get(video), "surplus", f"video {video} is in none of the folds"))
            continue
        spoken = _transcript(root, media["text"].get(video), len(segments), encoding)
        for number, ((start, end), annotated) in enumerate(sorted(segments.items())):
            film, sound = media["video"].get(video), media["audio"].get(video)
            yield {
                "id": f"{name}/{video}/{number}",
                "corpus": name,
                "split": splits.get(video),
                "video": film or (None if sound else f"{video}.mp4"),
                "audio": sound or film or f"{video}.mp4",
                "start": start,
                "end": end,
                "dialogue": video,
                "turn": number,
                "text": spoken(number, start, end) or words_between(words, video, start, end),
                "values": {key: value for key, value in annotated.items() if math.isfinite(value)},
            }
    notes["videos in none of the folds"] = outside
    if not splits:
        notes["no *std_folds.py"] = "the clips have no official split"


def _find_media(root: Path, problems: list[dict]) -> dict[str, dict[str, str]]:
    """`video`, `audio`, `text` → name of a video → path; what lies in a folder `Full` comes first."""
    found: dict[str, dict[str, str]] = {"video": {}, "audio": {}, "text": {}}
    kinds = {"video": folder.VIDEO, "audio": folder.AUDIO, "text": (".txt", ".annotprocessed")}
    paths = sorted(folder.entries(root, problems), key=lambda path: ("full" not in path.lower().split("/"), path))
    for path in paths:
        for kind, suffixes in kinds.items():
            if path.lower().endswith(suffixes) and (kind != "text" or "segmented" in path.lower()):
                found[kind].setdefault(PurePosixPath(path).stem, path)
    return found


def _read_words(root: Path, problems: list[dict]) -> Sequence:
    paths = [
        path for path in folder.files(root, (".csd",)) if "timestampedwords" in path.lower() and "vector" not in path.lower()
    ]
    return read_sequence(root / paths[0], problems) if paths else {}


def _transcript(root: Path, path: str | None, segments: int, encoding: str | None) -> Callable[[int, float, float], str | None]:
    """(number, start, end) → text of a segment, or None.

    MOSEI's lines say `video___number___start___end___text`, MOSI's `number_DELIM_text` in the order of time.
    """
    timed: list[tuple[float, float, str]] = []
    numbered: list[str] = []
    for line in table.text_of(root / path, encoding).splitlines() if path else ():
        fields = line.strip().split("___")
        try:
            if len(fields) >= 5:
                timed.append((float(fields[2]), float(fields[3]), table.mend("___".join(fields[4:]).strip())))
            elif "_DELIM_" in line:
                numbered.append(table.mend(line.split("_DELIM_", 1)[1].strip()))
        except ValueError:
            continue

    def find(number: int, start: float, end: float) -> str | None:
        near = [text for low, high, text in timed if abs(low - start) < 0.1 and abs(high - end) < 0.1]
        if near:
            return near[0]
        return numbered[number] if len(numbered) == segments else None

    return find


def _read_splits(root: Path) -> dict[str, str]:
    """Video → split, of the SDK's file of folds, which is read as text and not run; {} without one."""
    paths = sorted(folder.files(root, ("std_folds.py",)))
    if not paths:
        return {}
    path = root / paths[0]
    result: dict[str, str | None] = {}
    try:
        for statement in ast.parse(table.text_of(path)).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                split = _FOLDS.get(statement.targets[0].id)
                result |= {str(video): split for video in ast.literal_eval(statement.value)} if split else {}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise CorpusError(f"{path} holds no lists of videos ({error}).") from error
    return {video: split for video, split in result.items() if split}

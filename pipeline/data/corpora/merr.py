"""MERR-style instruction JSON: films with an emotion and a description (Cheng et al. 2024)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, TableOptions, Tables
from .films import film_columns, find_films

EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise", "fear", "contempt", "doubt")
LAYOUT = "a *.json of records by name (pseu_emotion | emotion | label, text), films in video/ or below"
_LABEL_KEYS = ("pseu_emotion", "emotion", "label", "answer", "openset")
_NAME_KEYS = ("video_name", "video_id", "video", "name", "id")


def _record(key: str | None, record: object) -> tuple[str, str, str | None, dict]:
    if not isinstance(record, dict):
        raise ValueError(f"not a record but {type(record).__name__}")
    name = key or next((str(record[k]) for k in _NAME_KEYS if record.get(k)), None)
    if not name:
        raise ValueError(f"no name ({', '.join(_NAME_KEYS)})")
    label_key = next((k for k in _LABEL_KEYS if isinstance(record.get(k), str)), None)
    emotion = record[label_key].strip().lower().rstrip(".") if label_key else ""
    if emotion not in EMOTIONS:
        raise ValueError(f"{name}: emotion {emotion!r} is not one of {', '.join(EMOTIONS)}")
    text = next((record[k] for k in ("text", "subtitle", "transcript") if isinstance(record.get(k), str)), None)
    rest = {k: v for k, v in record.items() if k not in (label_key, "text", "subtitle", "transcript", *_NAME_KEYS)}
    return Path(name).stem if name.lower().endswith(folder.VIDEO) else name, emotion, text, rest


def _items(value: object, path: Path) -> list:
    if not isinstance(value, list):
        raise CorpusError(f"{path} holds no list of records.")
    return value


class Merr(Adapter):
    """Adapter of MERR-style records."""

    title = "MERR-style instruction data"
    licence = "annotation BSD-3; films under the MER2023 EULA"
    homepage = "https://github.com/ZebangCheng/Emotion-LLaMA"
    layout = LAYOUT
    classes = EMOTIONS

    class Options(TableOptions):
        #: File with the records; null: the only *.json of the root.
        file: str | None = None
        media: Literal["video", "none"] = "video"

    options: Options

    def read(self) -> Tables:
        """One clip per record; what the record says beyond emotion and text is kept in `labels`."""
        options = self.options
        root = self.root
        found = [root / options.file] if options.file else sorted(root.glob("*.json"))
        if len(found) != 1 or not found[0].is_file():
            raise CorpusError(
                f"{root}: name the file of records in corpus.options.file (there are "
                f"{len(found) if not options.file else 'none of that name'}). Expected {LAYOUT}."
            )
        value = table.load_json(table.text_of(found[0], options.encoding), str(found[0]))
        if isinstance(value, dict):
            value = value.get("annotations", value)
        records = list(value.items()) if isinstance(value, dict) else [(None, item) for item in _items(value, found[0])]
        result = Tables(clips=[])
        films = find_films(root, options.media, result.problems)
        for number, (key, record) in enumerate(records, 1):
            try:
                name, emotion, text, rest = _record(key, record)
            except ValueError as error:
                result.problems.append(folder.problem(None, found[0].name, "row", f"record {number}: {error}"))
                continue
            result.clips.append(
                {
                    "id": f"merr/{name}",
                    "corpus": "merr",
                    "language": "zh",
                    "emotion": emotion,
                    "text": text,
                    "labels": table.labels(**rest),
                    **film_columns(films, name, options.media),
                }
            )
        result.notes["clips per emotion"] = dict(sorted(Counter(clip["emotion"] for clip in result.clips).items()))
        return result

"""MER2023 list files and MERR-style instruction JSON (Lian et al. 2023; Cheng et al. 2024)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline import params
from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, Tables
from .options import Options, parse

MER_EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
MERR_EMOTIONS = (*MER_EMOTIONS, "fear", "contempt", "doubt")
#: Stands for "no valence" in the lists.
NO_VALENCE = -10.0
MER_LAYOUT = (
    "{train,test1,test2,test3}-label.csv (name, discrete, valence) beside train/, test1/, … as distributed, or lists "
    "named {train,val,test}*.txt (`<name> <frames> <label> <valence or -10>`) with films anywhere below; "
    "transcription*.csv (name, sentence) when there is one"
)
MERR_LAYOUT = "a *.json of records by name (pseu_emotion | emotion | label, text), films in video/ or below"
_LABEL_KEYS = ("pseu_emotion", "emotion", "label", "answer", "openset")
_NAME_KEYS = ("video_name", "video_id", "video", "name", "id")


class MerOptions(Options):
    #: Valence of the lists runs from -scale to scale.
    scale: float = 5.0
    #: `none`: the lists alone.
    media: Literal["video", "none"] = "video"


class MerrOptions(Options):
    #: File with the records; null: the only *.json of the root.
    file: str | None = None
    media: Literal["video", "none"] = "video"


def line_of(text: str, scale: float) -> tuple[str, str, float | None]:
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
    if emotion not in MER_EMOTIONS:
        raise ValueError(f"label {emotion!r} is not of MER2023")
    if not valence or float(valence) == NO_VALENCE:
        return emotion, None
    return emotion, round(table.number(valence, -scale, scale) / scale, 9)


def read_mer(corpus: params.Corpus) -> Tables:
    """One clip per line of the tables or lists; the file's name says the split."""
    options = parse(corpus, MerOptions)
    root = folder.root_of(corpus.root, MER_LAYOUT)
    lists = [
        (path, split)
        for path in sorted([*root.rglob("*-label.csv"), *root.rglob("*.txt")])
        for start, split in (("train", "train"), ("val", "val"), ("test", "test"))
        if path.name.lower().startswith(start)
    ]
    if not lists:
        raise CorpusError(f"{root} holds no list of MER2023. Expected {MER_LAYOUT}.")
    films, spoken = _films(root, options.media), _spoken(root)
    result = Tables(clips=[])
    for path, split in lists:
        for number, read in _lines(path, options.scale):
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
                    **_film(films, name, options.media, path.name.removesuffix("-label.csv")),
                }
            )
    result.notes["clips"] = dict(sorted(Counter(clip["split"] for clip in result.clips).items()))
    return result


def _lines(path: Path, scale: float) -> Iterator[tuple[int, Callable[[], tuple[str, str, float | None]]]]:
    """(line number, what reads that line) of a list or a table."""
    if path.suffix == ".csv":
        for number, row in table.rows_of(path, ("name", "discrete")):
            yield number, lambda row=row: (row["name"], *_truth(row["discrete"], row.get("valence", ""), scale))
    else:
        for number, text in enumerate(table.text_of(path).splitlines(), 1):
            if text.strip():
                yield number, partial(line_of, text, scale)


def _spoken(root: Path) -> dict[str, str]:
    """Name → what is said, of the transcript that the organisers' baseline writes; {} without one."""
    found = sorted(root.rglob("transcription*.csv"))
    if not found:
        return {}
    return {row["name"]: row["sentence"] for _, row in table.rows_of(found[0], ("name", "sentence")) if row["sentence"]}


def read_merr(corpus: params.Corpus) -> Tables:
    """One clip per record; what the record says beyond emotion and text is kept in `labels`."""
    options = parse(corpus, MerrOptions)
    root = folder.root_of(corpus.root, MERR_LAYOUT)
    found = [root / options.file] if options.file else sorted(root.glob("*.json"))
    if len(found) != 1 or not found[0].is_file():
        raise CorpusError(
            f"{root}: name the file of records in corpus.options.file (there are "
            f"{len(found) if not options.file else 'none of that name'}). Expected {MERR_LAYOUT}."
        )
    value = table.load_json(table.text_of(found[0]), str(found[0]))
    if isinstance(value, dict):
        value = value.get("annotations", value)
    records = list(value.items()) if isinstance(value, dict) else [(None, item) for item in value]
    films = _films(root, options.media)
    result = Tables(clips=[])
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
                **_film(films, name, options.media),
            }
        )
    result.notes["clips per emotion"] = dict(sorted(Counter(clip["emotion"] for clip in result.clips).items()))
    return result


def _record(key: str | None, record: object) -> tuple[str, str, str | None, dict]:
    if not isinstance(record, dict):
        raise ValueError(f"not a record but {type(record).__name__}")
    name = key or next((str(record[k]) for k in _NAME_KEYS if record.get(k)), None)
    if not name:
        raise ValueError(f"no name ({', '.join(_NAME_KEYS)})")
    label_key = next((k for k in _LABEL_KEYS if isinstance(record.get(k), str)), None)
    emotion = record[label_key].strip().lower().rstrip(".") if label_key else ""
    if emotion not in MERR_EMOTIONS:
        raise ValueError(f"{name}: emotion {emotion!r} is not one of {', '.join(MERR_EMOTIONS)}")
    text = next((record[k] for k in ("text", "subtitle", "transcript") if isinstance(record.get(k), str)), None)
    rest = {k: v for k, v in record.items() if k not in (label_key, "text", "subtitle", "transcript", *_NAME_KEYS)}
    return Path(name).stem if name.lower().endswith(folder.VIDEO) else name, emotion, text, rest


def _films(root: Path, media: str) -> dict[str, str]:
    """Path by name, and by `folder/name`: parts of a corpus may use a name twice."""
    found: dict[str, str] = {}
    for path in folder.files(root, folder.VIDEO) if media == "video" else ():
        found[Path(path).stem] = found[f"{Path(path).parent.name}/{Path(path).stem}"] = path
    return found


def _film(films: dict[str, str], name: str, media: str, place: str = "video") -> dict:
    if media == "none":
        return {}
    film = films.get(f"{place}/{name}") or films.get(name, f"video/{name}.mp4")
    return {"video": film, "audio": film}


MER2023 = Adapter(
    name="mer2023",
    title="MER2023, multimodal emotion recognition challenge",
    licence="under EULA from the organisers",
    homepage="http://merchallenge.cn/mer2023",
    layout=MER_LAYOUT,
    classes=MER_EMOTIONS,
    read=read_mer,
)
MERR = Adapter(
    name="merr",
    title="MERR-style instruction data",
    licence="annotation BSD-3; films under the MER2023 EULA",
    homepage="https://github.com/ZebangCheng/Emotion-LLaMA",
    layout=MERR_LAYOUT,
    classes=MERR_EMOTIONS,
    read=read_merr,
)

"""CREMA-D and EMO-DB: acted sentences whose file names say all (Cao et al. 2014; Burkhardt et al. 2005)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

from pipeline import params
from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, Tables
from .options import Options, parse

CREMA_D_EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
CREMA_D_SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
_CREMA_D = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX|X)", re.ASCII)

EMO_DB_EMOTIONS = {"W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral"}
EMO_DB_SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_EMO_DB = re.compile(r"(03|08|09|10|11|12|13|14|15|16)([ab]\d\d)([WLEAFTN])([a-f])", re.ASCII)


def crema_d_name(stem: str) -> dict:
    """Columns told by a name like `1001_DFA_ANG_XX`.

    Raises:
        ValueError: it is no such name.
    """
    match = _CREMA_D.fullmatch(stem)
    if not match or match[2] not in CREMA_D_SENTENCES or match[3] not in CREMA_D_EMOTIONS:
        raise ValueError("the name is not ACTOR_SENTENCE_EMOTION_LEVEL")
    level = {"LO": "low", "MD": "medium", "HI": "high"}.get(match[4], "unspecified")
    return {
        "speaker": match[1],
        "text": CREMA_D_SENTENCES[match[2]],
        "emotion": CREMA_D_EMOTIONS[match[3]],
        "language": "en",
        "labels": table.labels(level=level),
    }


def emo_db_name(stem: str) -> dict:
    """Columns told by a name like `03a01Fa`.

    Raises:
        ValueError: it is no such name.
    """
    match = _EMO_DB.fullmatch(stem)
    if not match or match[2] not in EMO_DB_SENTENCES:
        raise ValueError("the name is not SPEAKER SENTENCE EMOTION VERSION")
    return {
        "speaker": match[1],
        "text": EMO_DB_SENTENCES[match[2]],
        "emotion": EMO_DB_EMOTIONS[match[3]],
        "language": "de",
        "labels": table.labels(version=match[4]),
    }


def _read(corpus: params.Corpus, layout: str, named: Callable[[str], dict]) -> Tables:
    parse(corpus, Options)
    root = folder.root_of(corpus.root, layout)
    found: dict[str, dict] = {}
    problems = []
    for path in folder.files(root, folder.AUDIO + folder.VIDEO):
        stem = PurePosixPath(path).stem
        try:
            columns = named(stem)
        except ValueError as error:
            problems.append(folder.problem(None, path, "name", str(error)))
            continue
        clip = found.setdefault(stem, {"id": f"{corpus.name}/{stem}", "corpus": corpus.name, **columns})
        clip["session"] = clip["speaker"]
        kind = "audio" if path.lower().endswith(folder.AUDIO) else "video"
        if kind not in clip or path.lower().endswith(".wav"):
            # CREMA-D ships the sound twice; the uncompressed copy is the one to use.
            clip[kind] = path
    if not found:
        raise CorpusError(f"{root} holds no recording of {corpus.name}. Expected {layout}.")
    clips = [clip | {"audio": clip.get("audio") or clip.get("video")} for _, clip in sorted(found.items())]
    return Tables(
        clips,
        problems=problems,
        notes={
            "speakers": len({clip["speaker"] for clip in clips}),
            "clips per emotion": dict(sorted(Counter(clip["emotion"] for clip in clips).items())),
        },
    )


_CREMA_D_LAYOUT = "AudioWAV/<actor>_<sentence>_<emotion>_<level>.wav (and VideoFlash/….flv)"
_EMO_DB_LAYOUT = "wav/<speaker><sentence><emotion><version>.wav"


def read_crema_d(corpus: params.Corpus) -> Tables:
    """One clip per performance, sound and film joined by name."""
    return _read(corpus, _CREMA_D_LAYOUT, crema_d_name)


def read_emo_db(corpus: params.Corpus) -> Tables:
    """One clip per file."""
    return _read(corpus, _EMO_DB_LAYOUT, emo_db_name)


CREMA_D = Adapter(
    name="crema_d",
    title="CREMA-D, crowd-sourced emotional multimodal actors",
    licence="ODbL 1.0",
    homepage="https://github.com/CheyneyComputerScience/CREMA-D",
    layout=_CREMA_D_LAYOUT,
    classes=tuple(CREMA_D_EMOTIONS.values()),
    read=read_crema_d,
)
EMO_DB = Adapter(
    name="emo_db",
    title="EMO-DB, Berlin database of emotional speech",
    licence="free to use, cite the authors",
    homepage="http://emodb.bilderbar.info",
    layout=_EMO_DB_LAYOUT,
    classes=tuple(EMO_DB_EMOTIONS.values()),
    read=read_emo_db,
)

"""MSP-IMPROV and MSP-Podcast of the University of Texas at Dallas (Busso et al. 2017; Lotfian & Busso 2019)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Literal

from pipeline import params
from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, Tables
from .options import Options, parse

IMPROV_CODES = {"A": "angry", "H": "happy", "S": "sad", "N": "neutral", "O": "other"}
PODCAST_CODES = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
}
#: No agreement among the raters.
UNDECIDED = "X"
FOUR = ("angry", "happy", "neutral", "sad")
IMPROV_LAYOUT = (
    "Evalution.txt, Audio/session{N}/S{SS}{E}/{P,R,S,T}/MSP-IMPROV-*.wav, the same below Video/ (.avi), "
    "transcripts as <name>.txt in any folder"
)
PODCAST_LAYOUT = "Labels/labels_consensus.csv, Audios/*.wav, Transcripts/*.txt"
PARTITIONS = {"train": "train", "development": "val", "validation": "val", "test1": "test"}

_NAME = re.compile(r"(?:MSP|UTD)-IMPROV-(S\d\d)([AHSN])-([FM])(0[1-6])-([PRST])-([FM]{2})(\d\d)", re.ASCII)
_LINE = re.compile(
    r"((?:UTD|MSP)-IMPROV-[\w-]+)\.(?:avi|wav)\s*;\s*([A-Z])\s*;\s*A:([\d.]+|NaN)\s*;"
    r"\s*V:([\d.]+|NaN)\s*;\s*D:([\d.]+|NaN)\s*;.*",
    re.ASCII,
)


class MspOptions(Options):
    #: 4: angry, happy, neutral, sad; all: every class on which raters agree.
    classes: Literal["4", "all"] = "4"


class PodcastOptions(MspOptions):
    #: Further test partitions to take in, e.g. [Test2]; they become test clips too.
    also_test: tuple[str, ...] = ()


def improv_name(name: str) -> dict:
    """Columns told by a name like `MSP-IMPROV-S01A-F01-P-FM01`.

    Raises:
        ValueError: it is no such name.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError("the name is not MSP-IMPROV-S##E-G##-T-GG##")
    sentence, target, sex, session, kind, order, turn = match.groups()
    return {
        "speaker": f"{sex}{session}",
        "session": session,
        "turn": int(turn),
        # Both actors of a scene share it: the speaker's own letter is not part of it.
        "dialogue": f"{session}-{sentence}{target}-{kind}",
        "labels": table.labels(target=IMPROV_CODES[target], scenario=kind, order=order),
    }


def read_improv(corpus: params.Corpus) -> Tables:
    """One clip per evaluated turn."""
    options = parse(corpus, MspOptions)
    root = folder.root_of(corpus.root, IMPROV_LAYOUT)
    path = next((p for name in ("Evalution.txt", "Evaluation.txt") for p in sorted(root.rglob(name))), None)
    if path is None:
        raise CorpusError(f"{root} holds no Evalution.txt. Expected {IMPROV_LAYOUT}.")
    media = {Path(p).stem: p for p in folder.files(root, (".wav",))}
    films = {Path(p).stem: p for p in folder.files(root, (".avi", ".mp4"))}
    spoken = {Path(p).stem: p for p in folder.files(root, (".txt",))}
    result = Tables(clips=[])
    dropped: Counter[str] = Counter()
    for line, text in enumerate(table.text_of(path).splitlines(), 1):
        # Lines of single raters and blanks stand between the lines of the turns.
        if "-IMPROV-" not in text:
            continue
        match = _LINE.fullmatch(text.strip())
        try:
            if not match:
                raise ValueError("not a turn")
            name = match[1].replace("UTD-", "MSP-")
            columns = improv_name(name)
            arousal, valence, dominance = (table.rescale(table.number(match[i], 1, 5), 1, 5) for i in (3, 4, 5))
            emotion = _class(match[2], IMPROV_CODES)
        except ValueError as error:
            result.problems.append(folder.problem(None, path.name, "row", f"line {line}: {error}"))
            continue
        if not _kept(emotion, options):
            dropped[emotion or "no agreement"] += 1
            continue
        result.clips.append(
            {
                "id": f"msp_improv/{name}",
                "corpus": "msp_improv",
                "language": "en",
                **columns,
                "emotion": emotion,
                "video": films.get(name),
                "audio": media.get(name) or films.get(name) or f"Audio/{name}.wav",
                "text": _text(root, spoken.get(name)),
                "valence": valence,
                "arousal": arousal,
                "dominance": dominance,
            }
        )
    result.notes["turns left out"] = dict(sorted(dropped.items()))
    return result


def read_podcast(corpus: params.Corpus) -> Tables:
    """One clip per sentence of the consensus table; scales of 1..7."""
    options = parse(corpus, PodcastOptions)
    root = folder.root_of(corpus.root, PODCAST_LAYOUT)
    path = next((p for p in (root / "Labels/labels_consensus.csv", root / "labels_consensus.csv") if p.is_file()), None)
    if path is None:
        raise CorpusError(f"{root} holds no labels_consensus.csv. Expected {PODCAST_LAYOUT}.")
    partitions = PARTITIONS | {name.lower(): "test" for name in options.also_test}
    result = Tables(clips=[])
    dropped: Counter[str] = Counter()
    columns = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Split_Set")
    for line, row in table.rows_of(path, columns):
        try:
            emotion = _class(row["EmoClass"], PODCAST_CODES)
            vad = {
                name: table.rescale(table.number(row[column], 1, 7), 1, 7)
                for name, column in (("valence", "EmoVal"), ("arousal", "EmoAct"), ("dominance", "EmoDom"))
            }
        except ValueError as error:
            result.problems.append(folder.problem(None, path.name, "row", f"line {line}: {error}"))
            continue
        split = partitions.get(row["Split_Set"].lower())
        if split is None or not _kept(emotion, options):
            dropped[f"partition {row['Split_Set']}" if split is None else emotion or "no agreement"] += 1
            continue
        stem = row["FileName"].removesuffix(".wav")
        speaker = row["SpkrID"]
        sheet = f"Transcripts/{stem}.txt"
        inside = folder.inside(root, sheet) and (root / sheet).is_file()
        result.clips.append(
            {
                "id": f"msp_podcast/{stem}",
                "corpus": "msp_podcast",
                "split": split,
                "audio": f"Audios/{stem}.wav",
                # Hundreds of people nobody identified are not one speaker.
                "speaker": None if speaker.lower() in ("", "unknown", "nan") else speaker,
                "text": _text(root, sheet if inside else None),
                "language": "en",
                "emotion": emotion,
                **vad,
            }
        )
    result.notes["sentences left out"] = dict(sorted(dropped.items()))
    return result


def _class(code: str, codes: dict[str, str]) -> str | None:
    if code == UNDECIDED:
        return None
    if code not in codes:
        raise ValueError(f"emotion {code!r} is not of this corpus")
    return codes[code]


def _kept(emotion: str | None, options: MspOptions) -> bool:
    return emotion is not None and (options.classes == "all" or emotion in FOUR)


def _text(root: Path, relative: str | None) -> str | None:
    return None if relative is None else table.mend(" ".join(table.text_of(root / relative).split())) or None


IMPROV = Adapter(
    name="msp_improv",
    title="MSP-IMPROV, dyadic improvisations",
    licence="on request from UT Dallas MSP Lab",
    homepage="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html",
    layout=IMPROV_LAYOUT,
    classes=tuple(IMPROV_CODES.values()),
    read=read_improv,
)
PODCAST = Adapter(
    name="msp_podcast",
    title="MSP-Podcast, natural speech",
    licence="on request from UT Dallas MSP Lab",
    homepage="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html",
    layout=PODCAST_LAYOUT,
    classes=tuple(PODCAST_CODES.values()),
    read=read_podcast,
)

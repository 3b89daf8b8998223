"""IEMOCAP: five sessions of dyadic acting, ten speakers, emotions and V/A/D (Busso et al. 2008)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipeline.errors import CorpusError
from pipeline.params import Group

from . import folder, table
from .adapter import Adapter, Tables

CODES = {
    "neu": "neutral",
    "hap": "happy",
    "sad": "sad",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
    "fea": "fearful",
    "sur": "surprised",
    "dis": "disgusted",
    "oth": "other",
}
EMOTIONS = tuple(CODES.values())
#: Scale of valence, arousal and dominance.
LOW, HIGH = 1.0, 5.0
#: No majority among the annotators.
UNDECIDED = "xxx"
#: The usual class sets. In 4 and 5 excited counts as happy unless `excited` says otherwise.
CLASSES = {
    "4": ("angry", "happy", "neutral", "sad"),
    "5": ("angry", "frustrated", "happy", "neutral", "sad"),
    "6": ("angry", "excited", "frustrated", "happy", "neutral", "sad"),
    "all": EMOTIONS,
}
LAYOUT = (
    "Session{1..5}/dialog/{EmoEvaluation,transcriptions}/*.txt, Session{1..5}/sentences/wav/<dialogue>/*.wav "
    "(and dialog/{avi/DivX,wav} for pictures and both channels)"
)

_TURN = re.compile(
    r"\[(\d+(?:\.\d+)?) - (\d+(?:\.\d+)?)\]\t(\S+)\t(\w{3})\t"
    r"\[(-?[\d.]+), (-?[\d.]+), (-?[\d.]+)\]\s*",
    re.ASCII,
)
_LINE = re.compile(r"(Ses\d\d[FM]_\w+_[FM]\w*\d+)\s*\[(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)\]:\s?(.*)", re.ASCII)
_ID = re.compile(r"Ses0([1-5])([FM])_(?:impro|script)\w+_([FM])\w*\d+", re.ASCII)


def _emotion(code: str, options: Iemocap.Options) -> str | None:
    emotion = CODES.get(code)
    if emotion == "excited":
        how = options.excited or ("happy" if options.classes in ("4", "5") else "own")
        return {"happy": "happy", "own": "excited", "drop": None}[how]
    return emotion if emotion in CLASSES[options.classes] else None


def _turns(path: Path, problems: list[dict]) -> Iterator[tuple[str, dict, str]]:
    """(utterance, clip columns, code) of each evaluated turn."""
    for line, text in enumerate(table.text_of(path).splitlines(), 1):
        if not text.startswith("["):
            continue
        if text.startswith("[START_TIME"):
            continue
        match = _TURN.fullmatch(text)
        name = _ID.fullmatch(match[3]) if match else None
        if not match or not name or not match[3].startswith(path.stem):
            problems.append(folder.problem(None, path.name, "row", f"line {line}: not a turn"))
            continue
        if match[4] not in CODES and match[4] != UNDECIDED:
            problems.append(
                folder.problem(f"iemocap/{match[3]}", path.name, "label", f"line {line}: emotion {match[4]!r} is not of IEMOCAP")
            )
            continue
        # A few averages leave the scale of 1..5 by half a point: they are its ends.
        vad = [table.rescale(min(HIGH, max(LOW, float(match[i]))), LOW, HIGH) for i in (5, 6, 7)]
        yield (
            match[3],
            {
                "id": f"iemocap/{match[3]}",
                "corpus": "iemocap",
                "language": "en",
                "dialogue": path.stem,
                "speaker": f"Ses0{name[1]}_{name[3]}",
                "session": f"Ses0{name[1]}",
                "valence": vad[0],
                "arousal": vad[1],
                "dominance": vad[2],
                "start": float(match[1]),
                "end": float(match[2]),
            },
            match[4],
        )


def _media(root: Path, session: str, dialogue: str, name: str, clip: dict, options: Iemocap.Options) -> dict:
    cut = {"start": clip["start"], "end": clip["end"]}
    if options.audio == "sentences":
        if options.video:
            raise CorpusError(
                "corpus.options of iemocap: the film is of the whole dialogue; with video true set audio "
                "to dialogue, so that picture and sound share one cut."
            )
        return {
            "audio": f"{session}/sentences/wav/{dialogue}/{name}.wav",
            "start": None,
            "end": None,
            "expected": round(cut["end"] - cut["start"], 4),
        }
    left = clip["speaker"].endswith("F") == (options.female == "left")
    video = f"{session}/dialog/avi/DivX/{dialogue}.avi" if options.video else None
    return {"audio": f"{session}/dialog/wav/{dialogue}.wav", "video": video, "channel": "left" if left else "right", **cut}


def _transcript(path: Path) -> dict[str, tuple[float, str]]:
    """Utterance → (start, text); stray lines (director's notes) are passed over."""
    if not path.is_file():
        raise CorpusError(f"{path} is not there. Each dialogue needs its transcript.")
    found = {}
    for text in table.text_of(path).splitlines():
        if match := _LINE.fullmatch(text.strip()):
            found[match[1]] = (float(match[2]), table.mend(match[4].strip()))
    return found


class Iemocap(Adapter):
    """Adapter of IEMOCAP."""

    title = "IEMOCAP, Interactive Emotional Dyadic Motion Capture"
    licence = "on request from USC SAIL, research only"
    homepage = "https://sail.usc.edu/iemocap/"
    layout = LAYOUT
    classes = EMOTIONS
    scale = LOW, HIGH

    class Options(Group):
        classes: Literal["4", "5", "6", "all"] = "4"
        #: happy: merge; own: a class of its own; drop. null: happy in 4 and 5, own in 6 and all.
        excited: Literal["happy", "own", "drop"] | None = None
        #: sentences: one mono file per turn. dialogue: the stereo file of the dialogue, cut and one channel.
        audio: Literal["sentences", "dialogue"] = "sentences"
        #: Film of the dialogue, both actors side by side, cut to the turn.
        video: bool = False
        #: Channel of the dialogue file that holds the female speaker; the other holds the male.
        female: Literal["left", "right"] = "left"

    options: Options

    def read(self) -> Tables:
        """One clip per turn of the classes asked for; turns are numbered in the order of the transcript.

        Raises:
            CorpusError: no session, or a dialogue lacks its evaluation.
        """
        options = self.options
        root = self.root
        result = Tables(clips=[])
        dropped: Counter[str] = Counter()
        evaluations = sorted(root.glob("Session[1-5]/dialog/EmoEvaluation/Ses*.txt"))
        if not evaluations:
            raise CorpusError(f"{root} holds no evaluation of IEMOCAP. Expected {LAYOUT}.")
        for path in evaluations:
            if path.name.startswith("."):
                continue
            spoken = _transcript(path.parents[1] / "transcriptions" / path.name)
            order = {name: at for at, name in enumerate(sorted(spoken, key=lambda name: (spoken[name][0], name)))}
            for name, clip, code in _turns(path, result.problems):
                emotion = _emotion(code, options)
                if emotion is None:
                    dropped[CODES.get(code, code)] += 1
                    continue
                text = spoken.get(name, (0.0, None))[1]
                if name not in spoken:
                    result.problems.append(
                        folder.problem(
                            f"iemocap/{name}", path.name, "surplus", "no line of the transcript; the clip stays without text"
                        )
                    )
                result.clips.append(
                    clip
                    | _media(root, path.parents[2].name, path.stem, name, clip, options)
                    | {"emotion": emotion, "text": text, "turn": order.get(name)}
                )
        result.notes["turns left out (no majority, or not among the classes)"] = dict(sorted(dropped.items()))
        result.notes["clips per session"] = dict(sorted(Counter(clip["session"] for clip in result.clips).items()))
        return result

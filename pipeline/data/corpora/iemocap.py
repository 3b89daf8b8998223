"""IEMOCAP: five sessions of dyadic acting, ten speakers, emotions and V/A/D (Busso et al. 2008)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipeline.data import turns
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
#: What an annotator (C-E1; not the actors, C-F1, of themselves) said of the turn above.
_VOTES = re.compile(r"C-E\w*:\t([^\t]*).*", re.ASCII)
_LINE = re.compile(r"(Ses\d\d[FM]_\w+_[FM]\w*\d+)\s*\[(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)\]:\s?(.*)", re.ASCII)
#: Where the letter stands in the name of a dialogue, Ses01F_impro01.
_LETTER = 5
_ID = re.compile(r"Ses0([1-5])([FM])_(?:impro|script)\w+_([FM])\w*\d+", re.ASCII)


def _emotion(code: str, options: Iemocap.Options) -> str | None:
    emotion = CODES.get(code)
    if emotion == "excited":
        how = options.excited or ("happy" if options.classes in ("4", "5") else "own")
        return {"happy": "happy", "own": "excited", "drop": None}[how]
    return emotion if emotion in CLASSES[options.classes] else None


def _turns(path: Path, problems: list[dict]) -> Iterator[tuple[str, dict, str | None]]:
    """(utterance, clip columns, code) of each evaluated turn; the code is None where it is none of the corpus."""
    lines = table.text_of(path).splitlines()
    votes = _read_votes(lines)
    for line, text in enumerate(lines, 1):
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
            detail = f"line {line}: emotion {match[4]!r} is not of IEMOCAP; the turn stays as context"
            problems.append(folder.problem(f"iemocap/{match[3]}", path.name, "label", detail))
        # A few averages leave the scale of 1..5 by half a point: they are its ends.
        vad = [table.rescale(min(HIGH, max(LOW, float(match[i]))), LOW, HIGH) for i in (5, 6, 7)]
        clip = _clip(match[3], path.stem, name, float(match[1]), float(match[2])) | {
            "labels": table.labels(votes=votes.get(line))
        }
        known = match[4] in CODES or match[4] == UNDECIDED
        yield (
            match[3],
            clip | dict(zip(("valence", "arousal", "dominance"), vad, strict=True)),
            match[4] if known else None,
        )


def _read_votes(lines: list[str]) -> dict[int, dict[str, int]]:
    """Line of a turn → how many annotators gave it each label; one who gave several counts for each."""
    found: dict[int, Counter[str]] = {}
    turn = 0
    for line, text in enumerate(lines, 1):
        turn = line if text.startswith("[") else turn
        if said := _VOTES.fullmatch(text):
            found.setdefault(turn, Counter()).update(one for part in said[1].split(";") if (one := part.strip().lower()))
    return {line: dict(sorted(votes.items())) for line, votes in found.items() if votes}


def _clip(turn: str, dialogue: str, name: re.Match[str], start: float, end: float) -> dict:
    return {
        "id": f"iemocap/{turn}",
        "corpus": "iemocap",
        "language": "en",
        "dialogue": dialogue,
        "speaker": f"Ses0{name[1]}_{name[3]}",
        "session": f"Ses0{name[1]}",
        "start": start,
        "end": end,
    }


def _unrated(
    root: Path, session: str, dialogue: str, spoken: dict[str, tuple[float, float, str]], options: Iemocap.Options
) -> Iterator[tuple[str, dict]]:
    """(utterance, clip) of turns that the transcript has and nobody rated: laughter, overlaps, what was left out."""
    for turn, (start, end, _) in spoken.items():
        name = _ID.fullmatch(turn)
        if not name or not turn.startswith(dialogue):
            continue
        clip = _clip(turn, dialogue, name, start, end)
        media = _media(session, dialogue, turn, clip, options)
        # Few of them have a file of their own.
        there = end > start and all((root / media[m]).is_file() for m in ("video", "audio") if media.get(m))
        nothing = dict.fromkeys(("video", "audio", "channel", "half", "start", "end"))
        yield turn, turns.without_labels(clip | (media if there else nothing))


def _media(session: str, dialogue: str, name: str, clip: dict, options: Iemocap.Options) -> dict:
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
    # The actor whose face wears the markers, of whom the dialogue has its letter, is recorded on the left, in sound and picture.
    side = "left" if clip["speaker"][-1] == dialogue[_LETTER] else "right"
    film = {"video": f"{session}/dialog/avi/DivX/{dialogue}.avi", "half": side} if options.video else {}
    return {"audio": f"{session}/dialog/wav/{dialogue}.wav", "channel": side, **film, **cut}


def _transcript(path: Path) -> dict[str, tuple[float, float, str]]:
    """Utterance → (start, end, text); stray lines (director's notes) are passed over."""
    if not path.is_file():
        raise CorpusError(f"{path} is not there. Each dialogue needs its transcript.")
    found = {}
    for text in table.text_of(path).splitlines():
        if match := _LINE.fullmatch(text.strip()):
            found[match[1]] = (float(match[2]), float(match[3]), table.mend(match[4].strip()))
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
        #: Film of the dialogue, cut to the turn and to the speaker's half.
        video: bool = False
        #: keep: turns of no class asked for stay, for valence, arousal and dominance and as context. drop: they are left out.
        others: Literal["keep", "drop"] = "keep"

    options: Options

    def read(self) -> Tables:
        """One clip per turn, numbered in the order of the transcript; those of no class asked for have no emotion.

        Raises:
            CorpusError: no session, or a dialogue lacks its transcript.
        """
        root = self.root
        result = Tables(clips=[])
        others: Counter[str] = Counter()
        evaluations = sorted(root.glob("Session[1-5]/dialog/EmoEvaluation/Ses*.txt"))
        if not evaluations:
            raise CorpusError(f"{root} holds no evaluation of IEMOCAP. Expected {LAYOUT}.")
        for path in evaluations:
            spoken = _transcript(path.parents[1] / "transcriptions" / path.name)
            order = {name: at for at, name in enumerate(sorted(spoken, key=lambda name: (spoken[name][0], name)))}
            for name, clip in self._dialogue(path, spoken, result, others):
                text = spoken[name][2] if name in spoken else None
                result.clips.append(clip | {"text": text, "turn": order.get(name)})
        rated = {(path.parents[2].name, path.name) for path in evaluations}
        for path in sorted(root.glob("Session[1-5]/dialog/transcriptions/Ses*.txt")):
            if (path.parents[2].name, path.name) not in rated:
                place = path.relative_to(root).as_posix()
                result.problems.append(
                    folder.problem(None, place, "missing", "the dialogue has no evaluation beside its transcript")
                )
        result.notes["turns of no class asked for" + (", left out" if self.options.others == "drop" else "")] = dict(
            sorted(others.items())
        )
        result.notes["clips per session"] = dict(sorted(Counter(clip["session"] for clip in result.clips).items()))
        return result

    def _dialogue(
        self, path: Path, spoken: dict[str, tuple[float, float, str]], result: Tables, others: Counter[str]
    ) -> Iterator[tuple[str, dict]]:
        """(utterance, clip) of the rated turns of a dialogue, then of those nobody rated."""
        options, session, rated = self.options, path.parents[2].name, set()
        for name, clip, code in _turns(path, result.problems):
            rated.add(name)
            emotion = _emotion(code, options) if code else None
            if emotion is None:
                others[CODES.get(code, code) if code else "not of IEMOCAP"] += 1
                if options.others == "drop":
                    continue
            if name not in spoken and code is None:
                continue
            if name not in spoken:
                detail = "no line of the transcript; the clip stays without text"
                result.problems.append(folder.problem(f"iemocap/{name}", path.name, "surplus", detail))
            clip |= _media(session, path.stem, name, clip, options) | {"emotion": emotion}
            yield name, clip if code else turns.without_labels(clip)
        if options.others == "keep":
            for name, clip in _unrated(self.root, session, path.stem, spoken, options):
                if name not in rated:
                    others["not rated"] += 1
                    yield name, clip

"""RAVDESS: 24 actors speak and sing two statements in up to eight emotions (Livingstone & Russo 2018)."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pipeline.errors import CorpusError
from pipeline.params import Group

from . import folder
from .adapter import Adapter, Tables

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("Kids are talking by the door.", "Dogs are sitting by the door.")
MODALITIES = ("audiovisual", "video", "audio")
CHANNELS = ("speech", "song")

LAYOUT = "any folders of `MM-VC-EE-II-SS-RR-AA.{wav,flac,mp4}`, as the archives unpack"


@dataclass(frozen=True)
class Name:
    """The seven fields of a file name, by meaning."""

    modality: str
    channel: str
    emotion: str
    intensity: str
    statement: int
    repetition: int
    actor: int

    @property
    def take(self) -> str:
        """The performance, whatever it was recorded as: the six fields after the modality."""
        return "-".join(
            f"{number:02}"
            for number in (
                CHANNELS.index(self.channel) + 1,
                EMOTIONS.index(self.emotion) + 1,
                1 + (self.intensity == "strong"),
                self.statement,
                self.repetition,
                self.actor,
            )
        )


def parse_name(stem: str) -> Name:
    """Parse a file name without suffix, e.g. `03-01-06-02-01-02-17`.

    Raises:
        ValueError: it does not have seven two-digit fields in their ranges, or neutral is strong.
    """
    fields = stem.split("-")
    if len(fields) != 7 or any(len(f) != 2 or not (f.isascii() and f.isdigit()) for f in fields):
        raise ValueError("the name is not seven two-digit numbers joined by '-'")
    numbers = [int(f) for f in fields]
    for what, number, most in zip(
        ("modality", "channel", "emotion", "intensity", "statement", "repetition", "actor"),
        numbers,
        (3, 2, 8, 2, 2, 2, 24),
        strict=True,
    ):
        if not 1 <= number <= most:
            raise ValueError(f"{what} {number:02} is not 01..{most:02}")
    modality, channel, emotion, intensity, statement, repetition, actor = numbers
    if emotion == 1 and intensity == 2:
        raise ValueError("neutral has no strong intensity")
    return Name(
        MODALITIES[modality - 1],
        CHANNELS[channel - 1],
        EMOTIONS[emotion - 1],
        ("normal", "strong")[intensity - 1],
        statement,
        repetition,
        actor,
    )


def _clip(name: Name, found: dict[str, str]) -> dict:
    actor = f"actor_{name.actor:02}"
    source = found.get("audio") or found.get("audiovisual") or found["video"]
    return {
        "id": f"ravdess/{PurePosixPath(source).stem}",
        "corpus": "ravdess",
        "video": found.get("audiovisual") or found.get("video"),
        "audio": found.get("audio") or found.get("audiovisual"),
        "text": STATEMENTS[name.statement - 1],
        "language": "en",
        "speaker": actor,
        "session": actor,
        "emotion": name.emotion,
        "labels": f'{{"channel": "{name.channel}", "intensity": "{name.intensity}", '
        f'"repetition": {name.repetition}, "sex": "{"male" if name.actor % 2 else "female"}"}}',
    }


class Ravdess(Adapter):
    """Adapter of RAVDESS."""

    title = "RAVDESS, Ryerson Audio-Visual Database of Emotional Speech and Song"
    licence = "CC BY-NC-SA 4.0"
    homepage = "https://zenodo.org/records/1188976"
    layout = LAYOUT
    classes = EMOTIONS
    checked = "1,080 spoken takes of 18 actors, one film, file names"

    class Options(Group):
        #: Speech, song, or both (null).
        channel: Literal["speech", "song"] | None = "speech"
        #: Emotions kept, by name; empty keeps all eight.
        emotions: tuple[str, ...] = ()

    options: Options

    def read(self) -> Tables:
        """One clip per performance: its best picture and sound among the files found.

        A performance distributed as sound (`03-…wav`), as picture (`02-…mp4`) and as both (`01-…mp4`)
        is one clip: the separate sound file is preferred (48 kHz, uncompressed), then the film's own.
        The id is the name of the file that is heard, e.g. `ravdess/03-01-06-01-02-01-17`.

        Raises:
            CorpusError: no file of RAVDESS is below the root.
        """
        options = self.options
        unknown = sorted(set(options.emotions) - set(EMOTIONS))
        if unknown:
            raise CorpusError(f"corpus.options.emotions: {unknown[0]!r} is not of RAVDESS. Known: {', '.join(EMOTIONS)}.")
        root = self.root
        takes: dict[str, dict[str, str]] = defaultdict(dict)
        names: dict[str, Name] = {}
        problems: list[dict] = []
        left_out = 0
        for path in folder.files(root, folder.AUDIO + folder.VIDEO, problems):
            try:
                name = parse_name(PurePosixPath(path).stem)
            except ValueError as error:
                problems.append(folder.problem(None, path, "name", str(error)))
                continue
            if options.channel not in (None, name.channel) or name.emotion not in (options.emotions or EMOTIONS):
                left_out += 1
                continue
            kind = "audio" if path.lower().endswith(folder.AUDIO) else name.modality
            if kind in takes[name.take]:
                problems.append(
                    folder.problem(None, path, "surplus", f"another copy of the performance {takes[name.take][kind]}")
                )
                continue
            takes[name.take][kind] = path
            names[name.take] = name
        if not takes:
            raise CorpusError(f"{root} holds no RAVDESS {options.channel or 'recording'}. Expected {LAYOUT}.")
        clips = [_clip(names[take], found) for take, found in sorted(takes.items())]
        notes = {
            "actors": len({clip["speaker"] for clip in clips}),
            "files left out by options": left_out,
            "clips per emotion": dict(sorted(Counter(clip["emotion"] for clip in clips).items())),
        }
        return Tables(clips=clips, problems=problems, notes=notes)

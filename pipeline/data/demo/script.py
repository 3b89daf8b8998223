"""The script: who says what to whom, what they feel, and what each modality shows of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import emotions, words
from .cast import Speaker, speaker
from .options import Options

MODALITIES = ("face", "voice", "words")


@dataclass(frozen=True)
class Line:
    """One clip to be made.

    Attributes:
        id: `demo/s03/d07_t05`.
        emotion: what is felt, the truth.
        shown: what face, voice and words show; at most one of them differs from `emotion`.
        intensity: of the expression, about 1.
        duration: seconds, a whole number of frames.
        text: None when the clip has no transcript.
        sound, picture: whether the file has that track.
        seed: of everything random in the clip.
    """

    id: str
    session: str
    dialogue: str
    turn: int
    speaker: Speaker
    emotion: str
    shown: dict[str, str]
    intensity: float
    duration: float
    text: str | None
    sound: bool
    picture: bool
    seed: tuple[int, ...]

    @property
    def media(self) -> str:
        """Path of the file, relative to the corpus root."""
        return f"media/{self.id.removeprefix('demo/').replace('/', '_')}.mp4"


def write(options: Options) -> list[Line]:
    """All lines of the corpus, by session, dialogue and turn."""
    missing, ambiguous = _gaps(options)
    lines: list[Line] = []
    for session in range(options.sessions):
        dialogues = [number for number in range(options.dialogues) if number % options.sessions == session]
        pair = [speaker(options.seed, session, place) for place in (0, 1)]
        moods = _moods(options, session, len(dialogues))
        for position, number in enumerate(dialogues):
            for turn in range(options.turns):
                serial = len(lines)
                emotion = moods[position * options.turns + turn]
                place = (turn + position) % 2
                lines.append(_line(options, session, number, turn, pair[place], emotion, missing[serial], ambiguous[serial]))
    return lines


def _moods(options: Options, session: int, dialogues: int) -> list[str]:
    """Emotions of a session's turns: evenly many of each, and a mood tends to stay for a turn."""
    generator = np.random.default_rng([options.seed, 102, session])
    total = dialogues * options.turns
    # Which emotions get the remainder moves on from session to session.
    deck = [emotions.EMOTIONS[(index + session * total) % len(emotions.EMOTIONS)] for index in range(total)]
    moods: list[str] = []
    while deck:
        weights = np.array([2.5 if moods and mood == moods[-1] else 1.0 for mood in deck])
        moods.append(deck.pop(generator.choice(len(deck), p=weights / weights.sum())))
    return moods


def _gaps(options: Options) -> tuple[list[str | None], list[str | None]]:
    """Per clip: the modality that is missing, and the modality that misleads (never both)."""
    generator = np.random.default_rng([options.seed, 103])
    shares = (("words", options.no_text), ("voice", options.no_sound), ("face", options.no_picture))
    deal: list[str | None] = [name for name, share in shares for _ in range(round(share * options.clips))]
    deal = (deal + [None] * options.clips)[: options.clips]
    missing = [deal[index] for index in generator.permutation(options.clips)]
    # Dealt, not drawn, so that no seed favours a modality. Words get 3 of 7, being the easiest to tell apart.
    doubtful = round(options.ambiguity * options.clips)
    turn = ("words", "face", "words", "voice", "words", "face", "voice")
    deal = [turn[index % len(turn)] if index < doubtful else None for index in range(options.clips)]
    ambiguous = [deal[index] for index in generator.permutation(options.clips)]
    return missing, [None if gap else doubt for gap, doubt in zip(missing, ambiguous, strict=True)]


def _line(
    options: Options, session: int, dialogue: int, turn: int, person: Speaker, emotion: str,
    missing: str | None, ambiguous: str | None,
) -> Line:  # fmt: skip
    seed = (options.seed, 104, dialogue, turn)
    generator = np.random.default_rng(seed)
    shown = dict.fromkeys(MODALITIES, emotion)
    if ambiguous:
        choices = emotions.CONFUSED[ambiguous][emotion]
        shown[ambiguous] = choices[generator.integers(len(choices))]
    # A text that fails to tell is more often one that fits several emotions than one that lies.
    vague = ambiguous == "words" and generator.random() < 0.5
    text = words.shared(emotion, generator) if vague else words.telling(shown["words"], generator)
    frames = round(generator.uniform(options.shortest, options.longest) * options.fps)
    return Line(
        id=f"demo/s{session:02d}/d{dialogue:02d}_t{turn:02d}",
        session=f"s{session:02d}",
        dialogue=f"d{dialogue:02d}",
        turn=turn,
        speaker=person,
        emotion=emotion,
        shown=shown | ({"words": "several"} if vague else {}),
        intensity=float(generator.uniform(0.85, 1.15)),
        duration=frames / options.fps,
        text=None if missing == "words" else text,
        sound=missing != "voice",
        picture=missing != "face",
        seed=seed,
    )

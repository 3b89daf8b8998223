"""What is said: sentences that tell the emotion, and sentences that fit several."""

from __future__ import annotations

import numpy as np

SUBJECTS = ("the letter", "the party", "my sister", "the new job", "our trip", "the neighbours", "that phone call",
            "the exam", "the old house", "dinner", "the doctor", "the meeting")  # fmt: skip

#: {x} is a subject that says nothing about the emotion.
TELLING: dict[str, tuple[str, ...]] = {
    "neutral": (
        "So {x} is scheduled for Tuesday at ten.",
        "I wrote down the address for {x}, as usual.",
        "The usual list for {x} is on the table at ten.",
        "As usual, {x} is scheduled for Tuesday.",
    ),
    "joy": (
        "How wonderful, {x} makes me so happy!",
        "I love it, {x} was wonderful fun!",
        "Great news about {x}, I am so happy!",
        "Ha, {x} was great fun, I love it!",
    ),
    "sadness": (
        "I miss how {x} used to be, I feel so alone.",
        "I cried about {x}, it is gone now.",
        "It is gone, {x} is gone, and I feel so lonely.",
        "I am sorry, I cried, I miss everything about {x}.",
    ),
    "anger": (
        "Stop it, I am sick of your lies about {x}!",
        "How dare you shout about {x}, get out!",
        "You ruined {x} again, this is your fault!",
        "Enough, stop your lies, you ruined {x}!",
    ),
    "surprise": (
        "Wow, what, {x}, really, since when?",
        "Wait, what, I never expected {x}, wow!",
        "Really, {x}, out of nowhere, since when?",
        "Oh wow, {x} came suddenly out of nowhere!",
    ),
    "fear": (
        "I am scared, please hide, {x} is dangerous.",
        "Help me, someone is behind {x}, run!",
        "Please do not leave me, {x} frightens me, I am scared.",
        "Run, hide, something dangerous is near {x}!",
    ),
    "disgust": (
        "Yuck, {x} smells rotten, take it away.",
        "Ugh, that is gross, {x} was filthy.",
        "Yuck, {x} makes me want to vomit, how filthy.",
        "Ugh, rotten and gross, {x} turns my stomach.",
    ),
}

#: Sentences that two to four emotions share.
SHARED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("joy", "surprise", "anger", "neutral"),
     ("I cannot believe {x} turned out like this.", "You did all this for {x}.")),
    (("sadness", "fear", "neutral"), ("I do not know what to do about {x}.", "Let us not talk about {x} tonight.")),
    (("anger", "disgust", "sadness"), ("Somebody should have told me about {x}.", "I never want to see {x} again.")),
    (("surprise", "fear", "disgust"), ("Look at {x}, look at that.", "Did you see what happened to {x}.")),
    (("neutral", "joy", "sadness"), ("I was thinking about {x} this morning.", "Well, that was {x}, then.")),
    (("fear", "anger", "surprise", "disgust"), ("What is that doing near {x}.", "Where did you find {x}.")),
)  # fmt: skip


def telling(emotion: str, generator: np.random.Generator) -> str:
    """A sentence of that emotion."""
    return _fill(TELLING[emotion], generator)


def shared(emotion: str, generator: np.random.Generator) -> str:
    """A sentence that fits the emotion and others as well."""
    fitting = [sentences for emotions, sentences in SHARED if emotion in emotions]
    return _fill(fitting[generator.integers(len(fitting))], generator)


def _fill(sentences: tuple[str, ...], generator: np.random.Generator) -> str:
    sentence = sentences[generator.integers(len(sentences))]
    text = sentence.format(x=SUBJECTS[generator.integers(len(SUBJECTS))])
    return text[0].upper() + text[1:]

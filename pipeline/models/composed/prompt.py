"""A prompt with places for the rows of a film, the same for training and for generation, and where in it everything stands.

    bos · [INST] <video> · image · </video> <feature> · facemae · videomae · audio · cls · </feature> … [/INST] · answer · end

The layout is that of Emotion-LLaMA (Cheng et al. 2024, arXiv:2406.11161) after MiniGPT-v2. Each part is tokenised by itself, so
that a place never depends on what stands beside it; a transcript is never looked through for placeholders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import ValidationInfo, field_validator

from pipeline.errors import ParamsError
from pipeline.params.base import Group

IMAGE = "image"
IMAGE_HERE, FEATURES_HERE, ASK_HERE = "<VideoHere>", "<FeatureHere>", "{}"
#: Spans of the prompt's own tokens; rows of a stream have the stream's name.
BOS, PREFIX, BETWEEN, TEXT, ANSWER = OWN = ("bos", "prefix", "between", "text", "answer")
#: Instead of an id, where a row of a stream stands; and as a label, where nothing is learned.
PLACE, UNLABELLED = -1, -100


class Wording(Group):
    """What a prompt says around what is asked; another wording is another feature.

    template: around the whole. layout: where the rows stand, before what is asked. said: quotes the transcript, `{text}`.
    task: what it is about, `{task}`.
    """

    template: str = "[INST] {} [/INST]"
    layout: str = f"<video>{IMAGE_HERE}</video> <feature>{FEATURES_HERE}</feature> "
    said: str = "The person in the video says: “{text}”. "
    task: str = "[{task}] "

    @field_validator("template", "layout")
    @classmethod
    def _places(cls, value: str, info: ValidationInfo) -> str:
        wanted = (ASK_HERE,) if info.field_name == "template" else (IMAGE_HERE, FEATURES_HERE)
        for place in wanted:
            if value.count(place) != 1:
                raise ValueError(f"{place} has to stand in it once")
        if wanted != (ASK_HERE,) and value.index(FEATURES_HERE) < value.index(IMAGE_HERE):
            raise ValueError(f"{IMAGE_HERE} stands before {FEATURES_HERE}")
        return value

    @field_validator("said", "task")
    @classmethod
    def _slots(cls, value: str, info: ValidationInfo) -> str:
        slot = "{text}" if info.field_name == "said" else "{task}"
        if value and value.count(slot) != 1:
            raise ValueError(f"{slot} has to stand in it once")
        return value


@dataclass(frozen=True)
class Ask:
    """What is asked of one clip.

    Attributes:
        question: in words. task: in brackets before it, e.g. `emotion`, `reason`; None leaves the brackets out.
        transcript: what is said; None or blank leaves the sentence that quotes it out.
    """

    question: str
    task: str | None = None
    transcript: str | None = None


@dataclass(frozen=True)
class Tokeniser:
    """A language model's tokenizer, as far as a prompt needs it.

    Attributes:
        encode: text → ids, without markers.
        bos, end: what a text begins with and an answer ends with; None = nothing.
    """

    encode: Callable[[str], Sequence[int] | np.ndarray]
    bos: int | None
    end: int | None = None

    def __call__(self, text: str) -> list[int]:
        return [int(one) for one in self.encode(text)] if text else []


@dataclass(frozen=True)
class Wrapped:
    """A prompt, and the answer where there is one.

    Attributes:
        ids: (L,) int64, `PLACE` where a row stands.
        spans: name → first place and the one after the last, in order; together they are the whole.
    """

    ids: np.ndarray
    spans: dict[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> np.ndarray:
        """(L,) int64: the ids of the answer and its end, `UNLABELLED` elsewhere."""
        labels = np.full(len(self.ids), UNLABELLED, np.int64)
        low, high = self.spans.get(ANSWER, (0, 0))
        labels[low:high] = self.ids[low:high]
        return labels

    def places(self, span: str) -> np.ndarray:
        """(n,) int64 places of a span; none where it is absent."""
        return np.arange(*self.spans.get(span, (0, 0)))


def wrap(
    tokeniser: Tokeniser,
    rows: Mapping[str, int],
    ask: Ask,
    wording: Wording = Wording(),  # noqa: B008  frozen
    *,
    answer: str | None = None,
    limit: int | None = None,
) -> Wrapped:
    """The prompt of one clip.

    Args:
        rows: how many rows each stream has, in their order; `image` stands at its own place, the others together. A stream
            that the clip lacks has none, and takes no place.
        answer: what is to be learned; None = it is to be generated, from the same prompt token for token.
        limit: places that the language model has.

    Raises:
        ParamsError: it is longer than that, or a stream is called as a part of the prompt is.
    """
    if taken := set(OWN) & set(rows):
        raise ParamsError(f"a stream of a prompt cannot be called {min(taken)}; choose another name.")
    before, _, after = wording.template.partition(ASK_HERE)
    head, _, rest = wording.layout.partition(IMAGE_HERE)
    middle, _, tail = rest.partition(FEATURES_HERE)
    said = wording.said.replace("{text}", ask.transcript.strip()) if ask.transcript and ask.transcript.strip() else ""
    task = wording.task.replace("{task}", ask.task) if ask.task else ""
    parts: dict[str, list[int]] = {
        BOS: [] if tokeniser.bos is None else [tokeniser.bos],
        PREFIX: tokeniser(before + head),
        IMAGE: [PLACE] * rows.get(IMAGE, 0),
        BETWEEN: tokeniser(middle),
        **{name: [PLACE] * count for name, count in rows.items() if name != IMAGE},
        TEXT: tokeniser(f"{tail}{said}{task}{ask.question}{after}"),
    }
    if answer is not None:
        parts[ANSWER] = [*tokeniser(answer), *([] if tokeniser.end is None else [tokeniser.end])]
    ends = np.cumsum([0, *(len(ids) for ids in parts.values())]).tolist()
    if limit is not None and ends[-1] > limit:
        raise ParamsError(f"a prompt of {ends[-1]} tokens, and the language model takes {limit}; shorten the text.")
    spans = {name: bounds for name, bounds in zip(parts, pairwise(ends), strict=True) if bounds[0] < bounds[1]}
    return Wrapped(np.concatenate([np.array(ids, np.int64) for ids in parts.values()]), spans)


def collate(wrapped: Sequence[Wrapped]) -> tuple[np.ndarray, np.ndarray]:
    """Ids (B, L) int64, padded on the right with 0, and mask (B, L) bool; `PLACE` stays where a row stands."""
    longest = max(len(one) for one in wrapped)
    ids, mask = np.zeros((len(wrapped), longest), np.int64), np.zeros((len(wrapped), longest), bool)
    for i, one in enumerate(wrapped):
        ids[i, : len(one)], mask[i, : len(one)] = one.ids, True
    return ids, mask

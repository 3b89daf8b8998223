"""Answers that should be one of a list: how likely each is, and what an answer in words names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.models.composed.speaker import Allowed

from .examples import Example
from .tutor import Tutor


@torch.no_grad()
def score_labels(tutor: Tutor, examples: Sequence[Example]) -> Tensor:
    """(N, K) mean log-likelihood of the tokens of each class as the answer, its end included, all of them teacher-forced.

    The mean over tokens makes classes of one token and of three comparable.
    """
    tutor.speaker.eval()
    asked = [(example, name) for example in examples for name in tutor.classes]
    found: list[Tensor] = []
    for start in range(0, len(asked), tutor.settings.batch):
        pairs = [tutor.ask(example, answer=name) for example, name in asked[start : start + tutor.settings.batch]]
        scores = tutor.speaker.score([prompt for prompt, _ in pairs], [rows for _, rows in pairs])
        found += [one.mean().cpu() for one in scores]
    return torch.stack(found).reshape(len(examples), len(tutor.classes)) if found else torch.zeros(0, len(tutor.classes))


def find_label(answer: str, classes: Sequence[str]) -> int:
    """Place of the class that an answer is or ends with, -1 where it is none: nothing is guessed.

    >>> [find_label(said, ("joy", "fear")) for said in ("Joy.", "She shows fear", "joyful", "fear of joy or so", "")]
    [0, 1, -1, -1, -1]
    """
    words = re.sub(r"[^\w]+$", "", answer.strip().casefold())
    ending = [i for i, name in enumerate(classes) if re.search(rf"(?:^|\W){re.escape(name.casefold())}$", words)]
    # `very happy` is that, where `happy` is a class too.
    return max(ending, key=lambda i: len(classes[i]), default=-1)


def keep_to(labels: Sequence[Sequence[int]], ends: Sequence[int]) -> Allowed:
    """What may come next so that an answer is one of `labels` (ids without their end).

    >>> keep_to([[5, 6], [5, 7], [8]], [2])([5]), keep_to([[5, 6], [8]], [2])([8])
    ([6, 7], [2])
    """

    def allowed(said: Sequence[int]) -> list[int]:
        begun = [list(one) for one in labels if list(one[: len(said)]) == list(said)]
        following = {one[len(said)] for one in begun if len(one) > len(said)}
        return sorted(following | (set(ends) if any(len(one) == len(said) for one in begun) else set()))

    return allowed

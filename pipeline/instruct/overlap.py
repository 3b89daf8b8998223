"""How far a reasoned answer names the emotions and the clues of another, 0 to 10, without asking anybody.

Scores of this kind are usually asked of a large model (EMER; Lian et al. 2023, arXiv:2306.15401). These are counts of words
and stand for nothing more: synonyms count as different clues.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from pipeline.data.names import emotion

#: Words that are no clue.
PLAIN = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her him his i in into is it its may might "
    "my not of on or our she so such that the their them there these they this those to was we were what when which while who "
    "will with would you your".split()
)


def find_emotions(text: str) -> set[str]:
    """Common names of the emotions that a text names.

    >>> sorted(find_emotions("She is sad, then angry."))
    ['anger', 'sadness']
    """
    return {name for word in re.findall(r"\w+", text) if (name := emotion(word)) is not None}


def find_clues(text: str) -> set[str]:
    """Stems of the words that say something, emotions apart.

    >>> sorted(find_clues("His voice is trembling; the voices tremble."))
    ['trembl', 'voic']
    """
    words = (word for word in re.findall(r"\w+", text.lower()) if word not in PLAIN and emotion(word) is None)
    return {_stem(word) for word in words}


def _stem(word: str) -> str:
    cut = re.sub(r"(?:ings?|edly|ed|ly|es|e|s)$", "", word)
    return cut if len(cut) >= 3 else word


def overlap(said: Collection[str], true: Collection[str]) -> float:
    """10 times the F1 of two sets; two empty ones agree.

    >>> overlap({"joy"}, {"joy", "fear"}), overlap((), ()), overlap({"joy"}, ())
    (6.666666666666667, 10.0, 0.0)
    """
    if not said and not true:
        return 10.0
    return 20.0 * len(set(said) & set(true)) / (len(set(said)) + len(set(true)))


def score_answer(said: str, true: str) -> dict[str, float]:
    """`label` and `clue` overlap of an answer with the true one."""
    return {
        "label": overlap(find_emotions(said), find_emotions(true)),
        "clue": overlap(find_clues(said), find_clues(true)),
    }

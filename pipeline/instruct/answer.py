"""Answers to the questions about held-out clips, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline import metrics
from pipeline.training.answers.calibration import fit_temperature

from .examples import Example
from .labels import find_label, keep_to, score_labels
from .overlap import score_answer
from .tutor import Tutor


def fit_temperatures(tutor: Tutor, val: Sequence[Example]) -> dict[str, float]:
    """Task → the temperature of its label scores, by validation examples; tasks without such have none."""
    found = {}
    for name in dict.fromkeys(one.task for one in val if one.label >= 0):
        some = [one for one in val if one.task == name]
        found[name] = fit_temperature(score_labels(tutor, some), torch.tensor([one.label for one in some]))
    return found


def say(tutor: Tutor, examples: Sequence[Example], *, constrained: bool = False) -> list[str]:
    """An answer to each, in words; what is drawn for one depends on the seed and its place alone.

    Args:
        constrained: where the answer should be a class, it is one, token by token.
    """
    tutor.speaker.eval()
    tongue, sampling, found = tutor.tongue, tutor.settings.sampling, list[str]()
    allowed = keep_to([tongue.tokeniser(name) for name in tutor.classes], tongue.ends)
    for place, example in enumerate(examples):
        prompt, rows = tutor.ask(example)
        generator = torch.Generator().manual_seed(sampling.seed + place)
        closed = allowed if constrained and tutor.settings.tasks[example.task].labels else None
        found.append(tongue.decode(tutor.speaker.say(prompt, rows, sampling, tongue.ends, generator, closed)).strip())
    return found


def answer(
    tutor: Tutor, examples: Sequence[Example], temperatures: Mapping[str, float], *, constrained: bool = False
) -> list[dict[str, Any]]:
    """A row per example: `said` in words, the class that it `named` (None: not one of the list), and, of classes, which is the
    likeliest by its score, how sure that is, and all `shares`."""
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(one.task for one in examples):
        some = [one for one in examples if one.task == name]
        words, closed = say(tutor, some, constrained=constrained), tutor.settings.tasks[name].labels
        shares = (score_labels(tutor, some).double() / temperatures.get(name, 1.0)).softmax(1) if closed else None
        for i, (example, said) in enumerate(zip(some, words, strict=True)):
            row: dict[str, Any] = {"clip": example.clip, "task": name, "true": example.answer, "said": said}
            if shares is None:
                rows.append(row | score_answer(said, example.answer))
                continue
            place, best = find_label(said, tutor.classes), int(shares[i].argmax())
            row |= {"named": tutor.classes[place] if place >= 0 else None, "likeliest": tutor.classes[best]}
            told = {one: float(share) for one, share in zip(tutor.classes, shares[i], strict=True)}
            rows.append(row | {"confidence": float(shares[i, best]), "shares": told})
    return rows


def measure(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Task → figures. An answer outside the list is a miss of its class, and counted; nothing is put in its place."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["task"] for row in rows):
        some = [row for row in rows if row["task"] == name]
        if "named" not in some[0]:
            found[name] = {"count": len(some)}
            found[name] |= {f"{kind}_overlap": float(np.mean([row[kind] for row in some])) for kind in ("label", "clue")}
            continue
        truth = [classes.index(row["true"]) for row in some]
        outside = sum(row["named"] is None for row in some)
        found[name] = {"count": len(some), "outside": outside, "outside_share": outside / len(some)}
        for kind in ("named", "likeliest"):
            places = [len(classes) if row[kind] is None else classes.index(row[kind]) for row in some]
            found[name][kind] = _figures(truth, places, classes)
    return found


def _figures(truth: list[int], places: list[int], classes: Sequence[str]) -> dict[str, Any]:
    # The class beyond the last takes what is none of them; it is never true, and no figure is of it.
    matrix = metrics.confusion(truth, places, len(classes) + 1)
    each = metrics.per_class(matrix)
    there = (matrix.sum(1) + matrix.sum(0) > 0)[: len(classes)]
    return {
        "accuracy": float(metrics.accuracy(matrix)),
        "uar": float(metrics.uar(matrix)),
        "weighted_f1": float(metrics.weighted_f1(matrix)),
        "macro_f1": float(np.mean(each["f1"][: len(classes)][there])),
        "classes": {
            name: {key: float(np.nan_to_num(values[i])) for key, values in each.items()}
            for i, name in enumerate(classes)
            if there[i]
        },
    }

"""How much of the speaker is left: whether a linear probe names the speakers of training clips from what the model makes of them.

See `training.answers.speakers`. Before: the mean of each stream's tokens. After: the fused vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline import metrics

from . import intervals
from .intervals import Draws
from .sums import Figures, Part


class Probes:
    """The probes of all folds, asked run by run."""

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._names: dict[int, list[str]] = {}
        self._before: dict[int, np.ndarray] = {}
        self._after: dict[int, dict[int, np.ndarray]] = {}

    def add(self, fold: int, seed: int, said: Mapping[str, Any]) -> None:
        """Of one run of the fused model what `Answers.speakers` holds; what goes in is the same for all seeds."""
        if "reason" in said:
            self._reasons.append(said["reason"])
            return
        self._names[fold] = said["speakers"]
        self._before[fold] = np.array(said["before"], bool)
        self._after.setdefault(seed, {})[fold] = np.array(said["after"], bool)

    def summarise(self) -> dict[str, object]:
        """What is said of the probes, for `probe.json`.

        Returns:
            `before` and `after` (shares with their intervals over speakers and seeds), `chance`, `clips`, `speakers` and
            `runs` (fold, seed, before, after); or `reason` why there is nothing.
        """
        if self._reasons or not self._names:
            return {"reason": next(iter(self._reasons), "There is no fused model.")}
        names = sorted({name for asked in self._names.values() for name in asked})
        before, after = (self._count(side, names) for side in ([self._before], [one for _, one in sorted(self._after.items())]))
        clips = {fold: len(asked) for fold, asked in self._names.items()}
        chance = sum(clips[fold] / len(set(asked)) for fold, asked in self._names.items()) / sum(clips.values())
        return {
            "before": _estimate(before),
            "after": _estimate(after),
            "chance": round(chance, 6),
            "clips": sum(clips.values()),
            "speakers": len(names),
            "runs": [
                {"fold": fold, "seed": seed, "before": _share(self._before[fold]), "after": _share(right)}
                for seed, folds in sorted(self._after.items())
                for fold, right in sorted(folds.items())
            ],
        }

    def _count(self, sides: list[dict[int, np.ndarray]], names: list[str]) -> np.ndarray:
        """(seeds, speakers, 2) clips whose speaker was named, and clips."""
        place = {name: k for k, name in enumerate(names)}
        sums = np.zeros((len(sides), len(names), 2))
        for seed, side in enumerate(sides):
            for fold, right in side.items():
                at = [place[name] for name in self._names[fold]]
                np.add.at(sums[seed], at, np.stack([right, np.ones(len(right))], 1))
        return sums


def _estimate(sums: np.ndarray) -> dict[str, float | None]:
    def figures(counts: np.ndarray) -> Figures:
        return {"share": metrics.ratio(counts[..., 0], counts[..., 1])}

    groups = sums.shape[1]
    draws = Draws.of(groups, len(sums)) if groups >= intervals.FEW else None
    return intervals.estimate([Part(sums, figures)], draws)["share"].rounded()


def _share(right: np.ndarray) -> float:
    return round(float(right.mean()), 6)

"""How much of the speaker is left: a linear probe names the speakers of training clips from what the model makes of them.

Trained on one half of each speaker's clips and asked of the other; of the speakers the model has learned from, since those
held out are not its doing. Before: the mean of each stream's tokens. After: the fused vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from pipeline import metrics
from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset

from . import intervals
from .intervals import Draws
from .predictions import predict_test
from .sums import Figures, Part

#: Most clips a fold's probe reads, and most speakers.
CLIPS, SPEAKERS = 200, 25
#: λ of mean cross entropy + λ/2 ‖W‖² on vectors whose mean squared length is 1.
PENALTY = 1e-2


def choose_clips(speaker: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the clips to learn from and of those to ask of, as many of every speaker as of every other, if they have them.

    Args:
        speaker: (N,) number of each clip's speaker, -1 unknown.
    """
    rng = np.random.default_rng([3, seed])
    numbers, counts = np.unique(speaker[speaker >= 0], return_counts=True)
    numbers = numbers[counts >= 2]
    numbers = np.sort(rng.permutation(numbers)[:SPEAKERS])
    halves: tuple[list[int], list[int]] = ([], [])
    for number in numbers:
        chosen = rng.permutation(np.flatnonzero(speaker == number))[: CLIPS // len(numbers)]
        for side, half in enumerate(halves):
            half.extend(chosen[side::2].tolist())
    return np.sort(np.array(halves[0], int)), np.sort(np.array(halves[1], int))


class Probe:
    """The probe of one fold: the same clips before and after, and of every seed."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        rows = data.rows("train")
        speaker = data.domain["speaker"][rows].cpu().numpy()
        self.known, self.asked = (rows.cpu().numpy()[part] for part in choose_clips(speaker, data.fold))
        codes = data.domain["speaker"].cpu().numpy()
        self.speakers = codes[self.known], codes[self.asked]
        self.names = [data.domains["speaker"][code] for code in self.speakers[1]]

    @property
    def reason(self) -> str:
        """Why nothing is asked; empty when something is."""
        count = len(set(self.speakers[0].tolist()))
        if count < 2:
            return f"{count or 'No'} training speaker{'' if count == 1 else 's'} with two clips or more."
        return ""

    def ask_input(self, streams: Sequence[str]) -> np.ndarray:
        """(A,) whether each clip's speaker is named from the mean of each stream's tokens."""
        batches = self.data.batches(self._rows, tuple(streams))
        return self._ask(np.concatenate([np.concatenate([pool(*batch.streams[n][:2]) for n in streams], 1) for batch in batches]))

    def ask_model(self, run: TrainedModel) -> np.ndarray:
        """(A,) whether each clip's speaker is named from the run's fused vector."""
        return self._ask(predict_test(run, self.data, self._rows)["embedding"].numpy())

    @property
    def _rows(self) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([self.known, self.asked]))

    def _ask(self, vectors: np.ndarray) -> np.ndarray:
        count = len(self.known)
        return name_speakers(vectors[:count], self.speakers[0], vectors[count:]) == self.speakers[1]


def name_speakers(known: np.ndarray, speaker: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(A,) the speaker of each vector of `asked` (A, W) by logistic regression on `known` (K, W) and whose they are (K,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known, asked = known.astype(float), asked.astype(float)
    mean, deviation = known.mean(0), known.std(0)
    # What does not vary says nothing; what is left of rounding must not be blown up.
    used = deviation > 1e-6 * np.maximum(np.abs(known).max(0), 1e-6)
    if not used.any():
        return np.full(len(asked), speaker[0])
    width = np.sqrt(used.sum())
    known, asked = ((side - mean)[:, used] / (deviation[used] * width) for side in (known, asked))
    # The weights lie in the span of the clips learned from: turned into it, wide vectors cost no more than there are clips.
    if known.shape[1] > len(known):
        turn = np.linalg.svd(known, full_matrices=False)[2].T
        known, asked = known @ turn, asked @ turn
    model = LogisticRegression(C=1 / (PENALTY * len(known)), max_iter=50, tol=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a share of clips are not at stake
        model.fit(known, speaker)
    return np.asarray(model.predict(asked))


def pool(values: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Tokens (B, T, ...) and their mask (B, T) → (B, D) the mean over each clip's; zeros, what normalised features are on
    average, where it has none."""
    values, mask = values.flatten(2), mask[..., None]
    return np.asarray(((values * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy())


class Probes:
    """The probes of all folds, asked run by run."""

    def __init__(self) -> None:
        self._probes: dict[int, Probe] = {}
        self._before: dict[int, np.ndarray] = {}
        self._after: dict[int, dict[int, np.ndarray]] = {}

    def ask(self, run: TrainedModel, data: Dataset) -> None:
        """Ask of one run's fused vector, and once in a fold of what goes in."""
        probe = self._probes.setdefault(data.fold, Probe(data))
        if probe.reason:
            return
        if data.fold not in self._before:
            self._before[data.fold] = probe.ask_input(run.streams)
        self._after.setdefault(run.config["seed"], {})[data.fold] = probe.ask_model(run)

    def summarise(self) -> dict[str, object]:
        """What is said of the probes, for `probe.json`.

        Returns:
            `before` and `after` (shares with their intervals over speakers and seeds), `chance`, `clips`, `speakers` and
            `runs` (fold, seed, before, after); or `reason` why there is nothing.
        """
        reasons = [probe.reason for probe in self._probes.values() if probe.reason]
        if reasons or not self._probes:
            return {"reason": next(iter(reasons), "There is no fused model.")}
        names = sorted({name for probe in self._probes.values() for name in probe.names})
        before, after = (self._count(side, names) for side in ([self._before], [one for _, one in sorted(self._after.items())]))
        clips = {fold: len(probe.names) for fold, probe in self._probes.items()}
        chance = sum(clips[fold] / len(set(probe.names)) for fold, probe in self._probes.items()) / sum(clips.values())
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
                at = [place[name] for name in self._probes[fold].names]
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

"""How much of the speaker is left: a linear probe names the speakers of training clips from what the model makes of them.

Trained on one half of each speaker's clips and asked of the other; of the speakers the model has learned from, since those
held out are not its doing. Before: the mean of each stream's tokens. After: the fused vector.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset

from .clips import predict_test

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


def ask_speakers(run: TrainedModel, data: Dataset) -> dict[str, object]:
    """What `Answers.speakers` holds: whose clips were asked of, and whether they were named from what goes in and from the
    fused vector; the same clips for every run of a fold."""
    train = data.rows("train").cpu().numpy()
    codes = data.domain["speaker"].cpu().numpy()
    known, asked = (train[part] for part in choose_clips(codes[train], data.fold))
    count = len(set(codes[known].tolist()))
    if count < 2:
        return {"reason": f"{count or 'No'} training speaker{'' if count == 1 else 's'} with two clips or more."}
    rows = torch.from_numpy(np.concatenate([known, asked])).to(data.emotion.device)

    def name(vectors: np.ndarray) -> list[bool]:
        said = name_speakers(vectors[: len(known)], codes[known], vectors[len(known) :])
        return [bool(right) for right in said == codes[asked]]

    batches = data.batches(rows, run.streams)
    before = np.concatenate([np.concatenate([pool(*batch.streams[n][:2]) for n in run.streams], 1) for batch in batches])
    return {
        "speakers": [data.domains["speaker"][code] for code in codes[asked]],
        "before": name(before),
        "after": name(predict_test(run, data, rows)["embedding"].numpy()),
    }


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
    return np.asarray(((values * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy())

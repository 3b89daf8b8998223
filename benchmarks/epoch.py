"""An epoch of training as it is, and the same steps on batches made before: what gathering, views and contexts cost.

Both are in one run: after each epoch the same model, built again, takes as many steps on batches that are ready.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from pipeline import params as parameters
from pipeline.models.model import EmotionModel
from pipeline.params import Params
from pipeline.storage import tables
from pipeline.training.course import prepare
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.dialogues import number_turns
from pipeline.training.data.resident import Resident
from pipeline.training.loop import fit, pooled_parts
from pipeline.training.objective import Objective
from pipeline.training.optimiser import build_optimiser
from pipeline.training.standardise import fit_statistics
from pipeline.training.state import Progress
from pipeline.training.variants import list_variants, specify_model

from .figures import Figure

CLASSES = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
#: Turns of a dialogue of MELD, on the mean.
TURNS = 10


@dataclass(frozen=True)
class Size:
    #: Training clips of MELD.
    clips: int = 9989
    #: Least and most tokens of a clip.
    tokens: tuple[int, int] = (4, 16)
    width: int = 384
    repeats: int = 5
    tiny: bool = False


TINY = Size(clips=60, tokens=(1, 3), width=8, repeats=1, tiny=True)

#: What is measured: name → groups of parameters. Views stand in the data, two of each stream.
CASES: dict[str, dict] = {
    "tokens, no views": {"views": 0},
    "tokens, two views": {"views": 2},
    "tokens, a context of ten turns": {
        "views": 0,
        "context": {"name": "transformer", "options": {"turns": 10}},
    },
    "one row per clip, two views": {
        "views": 2,
        "fusion": {"name": "early", "options": {"project": False}},
        "temporal": {"pooling": "statistics", "width": 256, "noise": 0.2},
        "training": {"batch_size": 128},
    },
}


def make_params(epochs: int, **groups: dict) -> Params:
    """Parameters of a fused network of two streams that selects nothing."""
    base = {
        "recipe": "demo",
        "corpus": {"name": "demo", "root": "."},
        "fusion": {"name": "gated"},
        "streams": {name: {"modality": name, "source": "x", "encoder": "x", "weights": "random:0"} for name in ("audio", "text")},
        "loss": {"emotion": {"name": "cross_entropy"}},
        "training": {"epochs": epochs, "refit": True, "select": "last", "unimodal": False, "linear": None},
    }
    for name, values in groups.items():
        base[name] = {**base.get(name, {}), **values}
    return parameters.parse(base)


def make_data(size: Size, views: int = 0) -> Dataset:
    """Clips of random numbers in dialogues, all of them training clips but the last dialogue's."""
    chance = np.random.default_rng(0)
    ids = [f"clip{i:05d}" for i in range(size.clips)]
    emotions = chance.integers(0, len(CLASSES), size.clips)
    table = tables.frame(
        [
            {"id": clip, "corpus": "demo", "dialogue": f"d{i // TURNS}", "turn": i % TURNS, "speaker": f"s{i % 3}"}
            for i, clip in enumerate(ids)
        ]
    )
    roles = np.array(["train"] * (size.clips - TURNS) + ["val"] * TURNS)
    return Dataset(
        ids=ids,
        roles=roles,
        streams={name: _stream(size, views, chance) for name in ("audio", "text")},
        emotion=torch.from_numpy(emotions),
        dimensions=torch.zeros(size.clips, 0),
        classes=CLASSES,
        dimension_names=(),
        domain={},
        domains={},
        turns=number_turns(table),
        table=table,
        fold=0,
        folds=pl.DataFrame({"id": ids, "fold": 0, "role": roles}),
    )


def _stream(size: Size, views: int, chance: np.random.Generator) -> Resident:
    lengths = np.tile(chance.integers(size.tokens[0], size.tokens[1] + 1, size.clips), views + 1)
    total = int(lengths.sum())
    starts = torch.arange(total) / 4
    return Resident(
        values=torch.from_numpy(chance.standard_normal((total, size.width), np.float32)),
        times=torch.stack([starts, starts + 0.25], 1),
        offsets=torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        targets=None,
        mean=np.zeros(size.width),
        std=np.ones(size.width),
        facts={"width": size.width, "levels": 0},
        views=tuple(f"view{k}" for k in range(views)),
    )


class ReadyMade:
    """The same model, loss and steps on batches that were made before."""

    def __init__(self, params: Params, data: Dataset) -> None:
        self.spec = specify_model(params, list_variants(params)[0], data)
        self.read = data.read(self.spec.streams)
        course = prepare(self.spec, self.read, params)
        torch.manual_seed(0)
        order = torch.Generator().manual_seed(0)
        self.model = EmotionModel(self.spec).to(data.emotion.device)
        fit_statistics(pooled_parts(self.model), self.spec, self.read, course.train, params)
        self.optimiser = build_optimiser(self.model, params.training)
        self.objective = Objective(params.loss, self.spec)
        self.objective.observe(course.targets(course.train))
        self.norm = params.training.clip_norm
        self.batches = [
            (self.read.batch(rows, tuple(self.spec.streams), course.turns, draw=order), course.targets(rows))
            for rows in (course.train[places] for places in course.sample(order, None))
        ]

    def __call__(self) -> None:
        """One epoch."""
        self.model.train()
        for inputs, targets in self.batches:
            loss = self.objective(self.model(inputs), targets)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.norm)
            self.optimiser.step()


def measure(folder: Path, size: Size) -> list[Figure]:
    """A ratio per case; an ensemble's epochs are those of its members, one after the other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [figure for name in CASES for figure in measure_case(name, size)]
    finally:
        torch.set_num_threads(threads)


def place(data: Dataset, device: str) -> Dataset:
    """The same clips on a device."""
    streams = {
        name: replace(one, values=one.values.to(device), times=one.times.to(device), offsets=one.offsets.to(device))
        for name, one in data.streams.items()
    }
    moved = {name: getattr(data, name).to(device) for name in ("emotion", "dimensions", "turns")}
    return replace(data, streams=streams, **moved)


def measure_case(name: str, size: Size, device: str = "cpu") -> list[Figure]:
    """One of `CASES`."""
    groups = dict(CASES[name])
    data = place(make_data(size, groups.pop("views")), device)
    # The first epoch warms both up.
    params = make_params(size.repeats + 1, **groups)
    ready = ReadyMade(params, data)
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    begun = _now(device)

    def after(_: Progress) -> None:
        nonlocal begun
        ended = _now(device)
        ready()
        ours.append((ended[0] - begun[0], ended[1] - begun[1]))
        begun = _now(device)
        bare.append((begun[0] - ended[0], begun[1] - ended[1]))

    fit(ready.spec, ready.read, params, 0, on_epoch=after)
    walls, busy = ([theirs[k] / own[k] for own, theirs in zip(ours[1:], bare[1:], strict=True)] for k in (0, 1))
    seconds = statistics.median(own[0] for own in ours[1:])
    note = f"speed; {len(ready.batches)} batches, {seconds:.3g} s an epoch; median of {size.repeats} by turns"
    return [
        Figure(f"{name}: epoch ÷ ready-made batches", statistics.median(walls), "ratio", ">= 0.9", note),
        Figure(f"{name}: the same in processor time", statistics.median(busy), "ratio", "", "hardly changed by other work"),
    ]


def _now(device: str) -> tuple[float, float]:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()

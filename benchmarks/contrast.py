"""Contrast over time: the terms without loops against one call per frame, and an epoch of it against the bare model.

Both forms of the terms see the same vectors, labels and queue and give the same value; the backward pass counts.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .figures import Figure, alternate, ratio

if TYPE_CHECKING:
    import torch

    from pipeline.models.batch import Outputs, Targets
    from pipeline.training.learner import Learner


@dataclass(frozen=True)
class Size:
    clips: int = 32
    frames: int = 16
    width: int = 128
    queue: int = 4096
    repeats: int = 5
    #: Of an epoch: batches of `clips`, and the width of a frame's features.
    batches: int = 8
    features: int = 512
    rounds: int = 5


TINY = Size(clips=3, frames=3, width=8, queue=5, repeats=1, batches=2, features=8, rounds=1)


def measure(folder: Path, size: Size) -> list[Figure]:
    return [*_terms(size), _epoch(size)]


def _terms(size: Size) -> list[Figure]:
    import torch
    import torch.nn.functional as F

    from pipeline.models.batch import Targets
    from pipeline.models.registry import LOSSES

    draw = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> torch.Tensor:
        return F.normalize(torch.randn(*shape, size.width, generator=draw), dim=-1)

    found = []
    targets = Targets(
        torch.zeros(size.clips),
        torch.zeros(size.clips, 0),
        torch.rand(size.clips, size.frames, 2, generator=draw) * 2 - 1,
        {},
        torch.ones(size.clips),
        torch.arange(size.clips),
    )
    frames, clips = unit(size.clips, size.frames).requires_grad_(), unit(size.clips).requires_grad_()
    outputs = {"projection": clips, "projection.frames": frames}
    for name, loop in (("local_contrastive", _loop_local), ("global_contrastive", _loop_global)):
        part = LOSSES.find(name)
        loss = part(None, size.width, part.Options(queue=size.queue))
        loss.push(unit(size.queue), torch.full((size.queue,), -1))
        values = [float(one.detach()) for one in (loss(outputs, targets), loop(outputs, targets, loss.queue))]
        if abs(values[0] - values[1]) > 1e-4 * abs(values[1]):
            raise RuntimeError(f"{name}: {values[0]} without loops, {values[1]} with them")
        taken = alternate(
            {
                "loop": lambda loss=loss, loop=loop: loop(outputs, targets, loss.queue).backward(),
                "whole": lambda loss=loss: loss(outputs, targets).backward(),
            },
            size.repeats,
        )
        what = f"{size.clips} clips of {size.frames} frames, {size.width} numbers, a queue of {size.queue}, with backward"
        speed = ratio(taken["loop"], taken["whole"])
        note = f"{what}; {statistics.median(taken['whole']) * 1e3:.3g} ms; {size.repeats} rounds by turns"
        found.append(Figure(f"{name}: a call per frame ÷ without loops", speed, "ratio", ">= 50", note))
    return found


def _loop_local(outputs: Outputs, targets: Targets, queue: torch.Tensor) -> torch.Tensor:
    """As a source system does it, with what it meant: labels weigh, and no frame of the same clip repels."""
    import torch

    frames, truth, values, weights = outputs["projection.frames"], targets.frames, [], []
    assert truth is not None
    for i, clip in enumerate(frames):
        for t in range(len(clip) - 1):
            others = torch.cat([*(other for k, other in enumerate(frames) if k != i), queue])
            values.append(_contrast(clip[t], clip[t + 1], others))
            weights.append((-10 * (truth[i, t + 1] - truth[i, t]).norm()).exp())
    weight = torch.stack(weights)
    return (torch.stack(values) * weight).sum() / weight.sum()


def _loop_global(outputs: Outputs, targets: Targets, queue: torch.Tensor) -> torch.Tensor:
    import torch

    frames, values = outputs["projection.frames"], []
    for i, clip in enumerate(frames):
        for frame in clip:
            others = torch.cat([*(other for k, other in enumerate(frames) if k != i), queue])
            values.append(_contrast(outputs["projection"][i], frame, others))
    return torch.stack(values).mean()


def _contrast(anchor: torch.Tensor, positive: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    import torch

    chances = torch.cat([(anchor @ positive)[None], others @ anchor]) / 0.07
    return chances.logsumexp(0) - chances[0]


def _epoch(size: Size) -> Figure:
    """An epoch of the loop beside forward, loss, backward and step of the same batches, gathered before."""
    learner = _learner(size)
    batches = [learner.course.show(places, None, learner.order) for places in learner.course.sample(learner.order, None)]

    def bare() -> None:
        learner.model.train()
        for inputs, targets in batches:
            learner.optimiser.zero_grad(set_to_none=True)
            learner.objective(learner.model(inputs), targets).backward()
            learner.optimiser.step()

    learner._learn()
    taken = alternate({"bare": bare, "epoch": learner._learn}, size.rounds)
    speed = size.batches * size.clips / statistics.median(taken["epoch"])
    note = f"{size.batches} batches of {size.clips} clips of {size.frames} frames of {size.features} numbers; {speed:.3g} clips/s"
    return Figure("an epoch of contrast ÷ the bare model", ratio(taken["bare"], taken["epoch"]), "ratio", ">= 0.9", note)


def _learner(size: Size) -> Learner:
    import numpy as np
    import polars as pl
    import torch

    from pipeline.models.model import EmotionModel
    from pipeline.params import parse
    from pipeline.training.data.dataset import Dataset
    from pipeline.training.data.resident import Resident
    from pipeline.training.learner import Learner
    from pipeline.training.optimiser import build_optimiser
    from pipeline.training.state import Progress
    from pipeline.training.variants import list_variants, specify_model

    count, length = size.batches * size.clips, size.frames
    draw = torch.Generator().manual_seed(0)
    names = ("valence", "arousal")
    resident = Resident(
        torch.randn(count * length, size.features, generator=draw),
        torch.stack([torch.arange(length), torch.arange(1, length + 1)], 1).repeat(count, 1) / 25,
        torch.arange(count + 1) * length,
        torch.rand(count * length, 2, generator=draw) * 2 - 1,
        np.zeros(size.features, np.float32),
        np.ones(size.features, np.float32),
        {"width": size.features, "levels": 0, "modality": "video"},
    )
    ids = [f"made/{i}" for i in range(count)]
    table = pl.DataFrame({"id": ids, **dict.fromkeys((*names, "dominance"), 0.0), "emotion": None})
    # The last clip is there to be validated on.
    roles = np.array(["train"] * (count - 1) + ["val"])
    nobody, everywhere = torch.full((count, 3), -1), torch.zeros(count, dtype=torch.int64)
    data = Dataset(
        ids, roles, {"video": resident}, everywhere - 1, torch.zeros(count, 2), (), names, {"corpus": everywhere},
        {"corpus": ("made",)}, nobody, table, 0, table,
    )  # fmt: skip
    local = {"name": "local_contrastive", "on": "projection", "options": {"queue": size.queue}}
    whole = {"name": "global_contrastive", "on": "projection", "weight": 0.5, "options": {"queue": size.queue}}
    params = parse(
        {
            "recipe": "made",
            "corpus": {"name": "demo", "root": "."},
            "fusion": {"name": "concat"},
            "streams": {"video": {"modality": "video", "source": "x", "encoder": "x", "weights": "random:0"}},
            "task": {"emotion": False, "level": "frame"},
            "loss": {"local": local, "global": whole, "smooth": {"name": "smoothness", "on": "projection", "weight": 0.1}},
            "temporal": {"width": size.width, "heads": 4},
            "training": {"batch_size": size.clips, "select": "loss", "linear": None},
        }
    )
    spec = specify_model(params, list_variants(params)[0], data)
    torch.manual_seed(0)
    model, order = EmotionModel(spec), torch.Generator().manual_seed(0)
    return Learner.begin("contrast", spec, data, params, model, build_optimiser(model, params.training), order, Progress(), 0)

"""All clips of one fold: batches are gathers.

Labels of test clips do not enter: `Dataset.load` empties them before anything else, whatever the manifest holds.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.models.batch import History, Inputs, Targets
from pipeline.models.pooled import Pooling
from pipeline.models.spec import StreamSpec
from pipeline.params import Params
from pipeline.params.learning import TRANSDUCTIVE
from pipeline.storage import tables
from pipeline.storage.index import Index

from .annotations import frame_truth
from .dialogues import find_turns, gather_turns, number_roles, number_turns, sort_turns
from .labels import (
    class_names,
    code_domains,
    dimension_values,
    fold_roles,
    label_sets,
    labels,
    number_groups,
    with_means,
    without_test_labels,
)
from .resident import Resident, choose_normalisation, load_stream
from .rotation import count_parts, rotate
from .windows import Cut, choose_limit


@dataclass(frozen=True)
class Dataset:
    """All clips of one fold.

    Attributes:
        ids: (N,) clip ids, sorted. roles: (N,) `train`, `val`, `test` or empty.
        streams: by name. emotion: (N,) int64, -1 unknown. dimensions: (N, K) float32, NaN unknown.
        classes, dimension_names: in the order of the targets.
        domain: `speaker` and `corpus`, each (N,) int64 places in `domains`, -1 unknown or not among the training clips.
        turns: (N, 3) int64, number of the dialogue, of the turn in it and of its speaker; -1 where there is none.
        folds: the rows of this fold, as the protocol drew them. part: the validation part selected on; 0 = the fold's own.
        table: N rows of the manifest, for what curricula go by; no label of a test clip.
    """

    ids: list[str]
    roles: np.ndarray
    streams: dict[str, Resident]
    emotion: Tensor
    dimensions: Tensor
    classes: tuple[str, ...]
    dimension_names: tuple[str, ...]
    domain: dict[str, Tensor]
    domains: dict[str, tuple[str, ...]]
    turns: Tensor
    table: pl.DataFrame
    fold: int
    folds: pl.DataFrame
    part: int = 0
    #: (N,) number of the speaker or session within whose clips features are normalised, -1 unknown; None = no such.
    within: Tensor | None = None
    #: Streams that are teachers; and (N, D) each, NaN where nobody was asked, what an ensemble says, see `training/student.py`.
    teachers: tuple[str, ...] = ()
    told: Mapping[str, Tensor] = field(default_factory=dict)
    _readings: dict[tuple[str, Pooling], Resident] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        index: str | Path,
        manifest: str | Path,
        folds: str | Path,
        params: Params,
        fold: int,
        *,
        annotations: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> Dataset:
        """One fold; features are read when they are asked for.

        Raises:
            StoreError: the index does not fit the manifest or the stores it points to.
        """
        table, stored = tables.read(manifest), Index(index)
        if sorted(table["id"].to_list()) != stored.ids:
            raise StoreError(f"{index} was made for other clips than {manifest} holds. Run `dvc repro index`.")
        classes = class_names(table, params)
        drawn = tables.read(folds)
        roles = fold_roles(drawn, stored.ids, fold)
        table = table.sort("id").with_columns(pl.Series("role", roles))
        table = without_test_labels(table)
        names = params.task.dimensions
        truth = {}
        if annotations is not None and names and Path(annotations).is_file():
            truth = frame_truth(tables.read(annotations), set(table.filter(pl.col("role") != "test")["id"]), names)
        along = truth if params.task.level == "frame" else None
        normalise = params.training.normalise
        domain, domains = code_domains(table, roles, device)
        streams = {
            name: load_stream(
                one := stored.stream(name),
                stored.ids,
                choose_normalisation(one, stored.folds.index(fold), normalise),
                choose_limit(params),
                along,
                len(names),
                device,
            )
            for name in params.streams
        }
        return cls(
            ids=stored.ids,
            roles=roles,
            streams=streams,
            emotion=labels(table["emotion"], classes if params.task.emotion else ()).to(device),
            dimensions=with_means(dimension_values(table, names), stored.ids, truth).to(device),
            classes=classes if params.task.emotion else (),
            dimension_names=tuple(names),
            domain=domain,
            domains=domains,
            turns=number_turns(table).to(device),
            table=table,
            fold=fold,
            folds=drawn.filter(pl.col("fold") == fold),
            within=number_groups(table, normalise).to(device) if normalise in TRANSDUCTIVE else None,
            teachers=params.teachers,
        )

    def read(self, streams: Mapping[str, StreamSpec]) -> Dataset:
        """The data set as a model of these streams reads it: pooled to one row per clip, normalised within a group."""
        return replace(self, streams=self.streams | {name: self._read(name, spec.pooling) for name, spec in streams.items()})

    def _read(self, name: str, pooling: Pooling) -> Resident:
        if (name, pooling) not in self._readings:
            self._readings[name, pooling] = self.streams[name].read(pooling, self.within)
        return self._readings[name, pooling]

    def rotate(self, turn: int) -> Dataset:
        """The same clips with validation part `turn`, counted round, to select on and the others to learn from.

        Held-out clips stay held out. Features are normalised as before: with the training clips of the fold as it was drawn,
        which is an affine map like any other.
        """
        roles = fold_roles(rotate(self.folds, turn), self.ids, self.fold)
        domain, domains = code_domains(self.table, roles, self.emotion.device)
        return replace(self, roles=roles, domain=domain, domains=domains, part=turn % count_parts(self.folds))

    def rows(self, *roles: str) -> Tensor:
        """Positions of the clips with one of these roles."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.roles, roles))).to(self.emotion.device)

    def present(self, names: Iterable[str]) -> Tensor:
        """(N,) bool: the clip has at least one of these streams."""
        return torch.stack([self.streams[name].present for name in names]).any(0)

    def labelled(self) -> Tensor:
        """(N,) bool: the clip has an emotion or a dimension."""
        return (self.emotion >= 0) | torch.isfinite(self.dimensions).any(1)

    def batch(
        self,
        rows: Tensor,
        streams: Iterable[str],
        turns: tuple[int, int] = (0, 0),
        view: int = 0,
        draw: torch.Generator | None = None,
        cut: Cut | None = None,
    ) -> Inputs:
        """Inputs of the clips at `rows` (R,).

        Args:
            turns: how many turns of its dialogue before each clip, and after it, stand in `Inputs.history`.
            view: 0 = clips as they are, k = the k-th view of every stream; a stream that has fewer is as it is.
            draw: source of chance by which each clip of each stream is drawn a view instead; of streams with truth over time
                one that shares their instants.
            cut: which part of each clip; None = all.
        """
        rows, history = gather_turns(self.find_turns(rows, turns)) if any(turns) else (rows, None)
        result = {}
        for name in streams:
            stream = self.streams[name]
            if not len(stream.values):
                raise StoreError(f"stream {name!r} has no token at all.")
            chosen = stream.choose_view(len(rows), view, draw, stream.targets is not None)
            places = rows + chosen * stream.clips
            result[name] = stream.tokens(places) if cut is None else cut.read(name, stream, places, chosen == 0)
        return Inputs(result, history=history)

    def batches(
        self, rows: Tensor, streams: Sequence[str], turns: tuple[int, int] = (0, 0), size: int = 64, view: int = 0
    ) -> Iterator[Inputs]:
        """The clips at `rows` in order, `size` at a time."""
        for part in rows.split(size):
            yield self.batch(part, streams, turns, view)

    def find_turns(self, rows: Tensor, turns: tuple[int, int]) -> History:
        """The turns around the clips at `rows` (R,), with positions among all clips; see `dialogues.find_turns`."""
        return find_turns(self.turns, *self._sorted, rows, turns)

    @functools.cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        return number_roles(self.roles).to(self.turns.device), sort_turns(self.turns)

    def targets(self, rows: Tensor, base: str | None = None, weight: Tensor | None = None, cut: Cut | None = None) -> Targets:
        """Truth of the clips at `rows` (R,); frame-level truth along the tokens of stream `base`.

        Args:
            weight: (R,) of each row; None = 1. cut: which part of each clip; None = all.
        """
        frames = None
        if base is not None and (along := self.streams[base].targets) is not None:
            part = None if cut is None else cut.choose(base, self.streams[base], rows)
            where, mask = self.streams[base].gather(rows, part)
            frames = along[where].masked_fill(~mask[..., None], float("nan"))
        weight = torch.ones(len(rows), device=rows.device) if weight is None else weight
        domain, taught = ({name: part[rows] for name, part in parts.items()} for parts in (self.domain, self.taught))
        sets = None if self._several is None else self._several[rows]
        return Targets(self.emotion[rows], self.dimensions[rows], frames, domain, weight, rows, taught, sets)

    @functools.cached_property
    def taught(self) -> dict[str, Tensor]:
        """(N, D) each: the mean rows of the streams that are teachers, and what an ensemble says."""
        return {name: self.streams[name].average() for name in self.teachers} | dict(self.told)

    @functools.cached_property
    def _several(self) -> Tensor | None:
        return label_sets(self.table, self.emotion, self.classes)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Hash of what is learnt from beside the features: ids, roles, labels, frame-level truth."""
        total = hashlib.sha256("\n".join([*self.ids, *self.roles, *self.classes, *self.dimension_names]).encode())
        targets = [self.streams[name].targets for name in sorted(names)]
        learned = (self.emotion, self.dimensions, self.turns, *self.domain.values(), self.within, self._several, *targets)
        for tensor in (one for one in learned if one is not None):
            total.update(tensor.cpu().numpy().tobytes())
        return total.hexdigest()

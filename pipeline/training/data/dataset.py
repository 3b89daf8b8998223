"""The cached set as resident tensors: batches are gathers, never reads.

Labels of test clips do not enter: `Dataset.load` empties them before anything else is made, whatever the
manifest holds (in k-fold protocols a clip is held out in one fold and trained on in another).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.models.batch import Inputs, Targets, Tokens
from pipeline.params import Params
from pipeline.storage import tables
from pipeline.storage.index import Index

from .labels import (
    DOMAINS,
    class_names,
    code_domains,
    dimension_values,
    fold_roles,
    frame_truth,
    labels,
    number_turns,
    with_means,
    without_test_labels,
)
from .resident import Resident, load_stream
from .rotation import count_parts, rotate


@dataclass(frozen=True)
class Dataset:
    """All clips of one fold.

    Attributes:
        ids: (N,) clip ids, sorted. roles: (N,) `train`, `val`, `test` or empty.
        streams: by name. emotion: (N,) int64, -1 unknown. dimensions: (N, K) float32, NaN unknown.
        classes, dimension_names: in the order of the targets.
        domain: `speaker` and `corpus`, each (N,) int64 places in `domains`, -1 unknown or not among the training clips.
        turns: (N, 2) int64, number of the dialogue and of the turn in it; -1 where there is none.
        folds: the rows of this fold, as the protocol drew them. owners: (N,) rows of the manifest's `DOMAINS`.
        part: the validation part selected on; 0 = the fold's own.
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
    fold: int
    folds: pl.DataFrame
    owners: pl.DataFrame
    part: int = 0

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
        """Read one fold into memory.

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
        limit = params.temporal.max_tokens
        owners = table.select(DOMAINS)
        domain, domains = code_domains(owners, roles, device)
        return cls(
            ids=stored.ids,
            roles=roles,
            streams={
                name: load_stream(stored.stream(name), stored.ids, stored.folds.index(fold), limit, along, len(names), device)
                for name in params.streams
            },
            emotion=labels(table["emotion"], classes if params.task.emotion else ()).to(device),
            dimensions=with_means(dimension_values(table, names), stored.ids, truth).to(device),
            classes=classes if params.task.emotion else (),
            dimension_names=tuple(names),
            domain=domain,
            domains=domains,
            turns=number_turns(table).to(device),
            fold=fold,
            folds=drawn.filter(pl.col("fold") == fold),
            owners=owners,
        )

    def rotate(self, turn: int) -> Dataset:
        """The same clips with validation part `turn`, counted round, to select on and the others to learn from.

        Held-out clips stay held out. Features are normalised as before: with the training clips of the fold as it was drawn,
        which is an affine map like any other.
        """
        roles = fold_roles(rotate(self.folds, turn), self.ids, self.fold)
        domain, domains = code_domains(self.owners, roles, self.emotion.device)
        return replace(self, roles=roles, domain=domain, domains=domains, part=turn % count_parts(self.folds))

    def rows(self, *roles: str) -> Tensor:
        """Positions of the clips with one of these roles."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.roles, roles))).to(self.emotion.device)

    def present(self, names: Iterable[str]) -> Tensor:
        """(N,) bool: the clip has at least one of these streams."""
        return torch.stack([self.streams[name].offsets.diff() > 0 for name in names]).any(0)

    def labelled(self) -> Tensor:
        """(N,) bool: the clip has an emotion or a dimension."""
        return (self.emotion >= 0) | torch.isfinite(self.dimensions).any(1)

    def batch(self, rows: Tensor, streams: Iterable[str], turns: int = 0) -> Inputs:
        """Inputs of the clips at `rows` (R,).

        Args:
            turns: how many earlier turns of its dialogue each clip is given, `Inputs.history`; 0 = none.
        """
        history = None
        if turns:
            wanted = torch.cat([self.find_turns(rows, turns), rows[:, None]], 1)  # (R, turns + 1), -1 none
            rows, places = wanted.clamp(min=-1).unique(return_inverse=True)
            # The first of the sorted rows is -1 where any turn is lacking.
            lacking = int(rows[0] < 0)
            rows, history = rows[lacking:], places - lacking
        return Inputs({name: self._tokens(name, rows) for name in streams}, history=history)

    def _tokens(self, name: str, rows: Tensor) -> Tokens:
        stream = self.streams[name]
        where, mask = stream.gather(rows)
        if not len(stream.values):
            raise StoreError(f"stream {name!r} has no token at all.")
        values = stream.values[where] * mask.reshape(*mask.shape, *[1] * (stream.values.dim() - 1))
        return Tokens(values, mask, stream.times[where] * mask[..., None])

    def batches(self, rows: Tensor, streams: Sequence[str], turns: int = 0, size: int = 64) -> Iterator[Inputs]:
        """The clips at `rows` in order, `size` at a time."""
        for part in rows.split(size):
            yield self.batch(part, streams, turns)

    def find_turns(self, rows: Tensor, turns: int) -> Tensor:
        """Positions (R, turns) of the earlier turns of each clip's dialogue, oldest first, -1 none.

        Only clips of the same role: what is held out is nobody's history but its own. Turns without a role, which are
        nobody's target, are everybody's history.
        """
        device = rows.device
        places = torch.full((len(rows), turns), -1, dtype=torch.int64, device=device)
        role = torch.from_numpy(np.unique(self.roles, return_inverse=True)[1]).to(device)
        free = torch.from_numpy(self.roles == "").to(device)
        dialogue, turn = self.turns.cpu().numpy().T
        order = torch.from_numpy(np.lexsort((turn, dialogue))).to(device)  # clips by dialogue, then turn
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=device)
        for ago in range(1, turns + 1):
            before = rank[rows] - ago
            found = order[before.clamp(min=0)]
            same = (before >= 0) & (self.turns[rows, 0] >= 0) & (self.turns[found, 0] == self.turns[rows, 0])
            places[:, turns - ago] = torch.where(same & (free[found] | (role[found] == role[rows])), found, -1)
        return places

    def targets(self, rows: Tensor, base: str | None = None, weight: Tensor | None = None) -> Targets:
        """Truth of the clips at `rows` (R,); frame-level truth along the tokens of stream `base`.

        Args:
            weight: (R,) of each row; None = 1.
        """
        frames = None
        if base is not None and (along := self.streams[base].targets) is not None:
            where, mask = self.streams[base].gather(rows)
            frames = along[where].masked_fill(~mask[..., None], float("nan"))
        if weight is None:
            weight = torch.ones(len(rows), device=rows.device)
        domain = {name: codes[rows] for name, codes in self.domain.items()}
        return Targets(self.emotion[rows], self.dimensions[rows], frames, domain, weight)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Hash of what is learnt from beside the features: ids, roles, labels, frame-level truth."""
        total = hashlib.sha256("\n".join([*self.ids, *self.roles, *self.classes, *self.dimension_names]).encode())
        targets = [self.streams[name].targets for name in sorted(names)]
        learned = (self.emotion, self.dimensions, self.turns, *self.domain.values())
        for tensor in (*learned, *(t for t in targets if t is not None)):
            total.update(tensor.cpu().numpy().tobytes())
        return total.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of the features."""
        return sum(s.values.numel() * s.values.element_size() for s in self.streams.values())

"""Protocols: which clips are trained on, selected on and tested on, fold by fold.

Every protocol gives one table `data/folds.parquet` (`id, fold, role, part`); one split is fold 0. `part` numbers the validation
parts that seeds may take in turn, see `_number_parts`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Protocol
from pipeline.storage.tables import SCHEMA

#: Columns of `data/folds.parquet`, beside `part`.
FOLDS: dict[str, pl.DataType] = {"id": pl.String(), "fold": pl.Int32(), "role": pl.String()}
ROLES = ("train", "val", "test")

#: Rows of `data/folds.parquet` beyond which leave-one-out is a mistake (a column of clip ids, say).
MAX_ROWS = 5_000_000


def is_single(protocol: Protocol) -> bool:
    """Whether the protocol makes one split (test truth is held out for good) rather than folds."""
    return protocol.kind in ("official", "split")


def make_folds(table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """The folds of `protocol` over the clips of `table` (manifest columns), as a table of `FOLDS` and `part` (Int32).

    Clips whose group is null are groups of their own. Shares `val` and `test` are of all clips. Turns that are no targets are
    in no fold.

    Raises:
        ParamsError: the group column does not exist, or the protocol cannot be had.
        CorpusError: the official split is absent, or there are too few groups.
    """
    table = table.filter(pl.col("target").fill_null(True))
    return _number_parts(_draw_roles(table, protocol), table, protocol)


def _draw_roles(table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """The folds without their validation parts."""
    if protocol.kind == "official":
        return _official(table, protocol)
    groups = _groups(table, protocol.group, protocol.stratify)
    roles = np.asarray(ROLES)
    if protocol.kind == "split":
        if protocol.test <= 0 or protocol.val + protocol.test >= 1:
            raise ParamsError(
                "protocol.val + protocol.test must leave clips to train on, and test must be above 0 "
                f"(got val {protocol.val}, test {protocol.test})."
            )
        shares = np.asarray([1 - protocol.val - protocol.test, protocol.val, protocol.test])
        part = groups.partition(shares, np.random.default_rng(protocol.seed))
        return _table(table["id"], [(0, roles[part[groups.index]])])
    if protocol.kind == "kfold":
        part = groups.partition(np.full(protocol.folds, 1 / protocol.folds), np.random.default_rng(protocol.seed))
        count = protocol.folds
    else:
        part, count = np.arange(groups.count), groups.count
        if count < 2:
            raise CorpusError(f"protocol.group: column {protocol.group} has one group; leave_one_out needs two.")
        if count * table.height > MAX_ROWS:
            raise ParamsError(
                f"protocol.group: column {protocol.group} has {count} groups over {table.height} clips; "
                "leave_one_out would make too many folds. Use protocol.kind kfold."
            )
    result = []
    for fold in range(count):
        rng = np.random.default_rng([protocol.seed, fold])
        test = part == fold
        role = np.where(test, 2, 0)
        if protocol.val > 0 and protocol.val_group is None:
            role[~test] = _draw_val(groups.subset(np.flatnonzero(~test)), table.height, protocol, rng)
        role = role[groups.index]
        if protocol.val > 0 and protocol.val_group is not None:
            others = _groups(table.filter(role == 0), protocol.val_group, protocol.stratify, "val_group")
            role[role == 0] = _draw_val(others, table.height, protocol, rng)[others.index]
        result.append((fold, roles[role]))
    return _table(table["id"], result)


def _draw_val(groups: Groups, clips: int, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """(G,) 1 for the groups of validation, 0 for those trained on; `val` is a share of all `clips`."""
    share = min(0.5, protocol.val * clips / max(1, groups.size))
    return groups.partition(np.asarray([1 - share, share]), rng)


def _number_parts(folds: pl.DataFrame, table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """`folds` with the validation part of every clip that is not tested on; null where there are none to take in turn.

    Part 0 is validation as it was drawn. The clips trained on make as many others of about its size as they have room and
    groups for, drawn by the same groups and as evenly over the classes. A validation part of the corpus' own has no others.
    """
    folds = folds.with_columns(part=pl.lit(None, pl.Int32))
    own = protocol.kind == "official" and (table["split"] == "val").any()
    if own or not (folds["role"] == "val").any():
        return folds
    name, key = (protocol.group, "group")
    if protocol.val_group is not None and protocol.kind != "split":
        name, key = protocol.val_group, "val_group"
    groups = _groups(table, name, protocol.stratify, key)
    placed, numbered = folds.join(table.select("id").with_row_index("row"), on="id", maintain_order="left"), []
    for (fold,), rows in placed.group_by("fold", maintain_order=True):
        group = groups.index[rows["row"].to_numpy()]
        drawn, trained = ((rows["role"] == role).to_numpy() for role in ("val", "train"))
        if drawn.any():
            kept = np.unique(group[trained])
            count = max(1, min(len(kept), round(trained.sum() / drawn.sum())))
            # Its own draws: those of the roles stay as they are.
            rng = np.random.default_rng([protocol.seed, int(str(fold)), 1])
            others = groups.subset(kept).partition(np.full(count, 1 / count), rng)
            part = np.where(drawn, 0, -1)
            part[trained] = 1 + others[np.searchsorted(kept, group[trained])]
            rows = rows.with_columns(part=pl.Series(part, dtype=pl.Int32).replace(-1, None))
        numbered.append(rows.drop("row"))
    return pl.concat(numbered)


class Groups:
    """Groups of clips that stay together, and how many clips of each class each one holds.

    Args:
        counts: (G, K) clips per group and class.
        index: (N,) group of each clip.
        column: the manifest column, for messages.
    """

    def __init__(self, counts: np.ndarray, index: np.ndarray, column: str) -> None:
        self.counts, self.index, self.column = counts, index, column
        self.count, self.size = len(counts), int(counts.sum())

    def subset(self, kept: np.ndarray) -> Groups:
        return Groups(self.counts[kept], np.empty(0, int), self.column)

    def partition(self, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(G,) part of each group, parts near `shares` of every class (greedy, largest group first).

        Raises:
            CorpusError: there are fewer groups than parts with a share.
        """
        wanted = np.flatnonzero(shares > 0)
        if self.count < len(wanted):
            raise CorpusError(
                f"protocol.group: column {self.column} has {self.count} groups, {len(wanted)} are "
                "needed. Choose another protocol.group, fewer folds, or protocol.val 0."
            )
        order = rng.permutation(self.count)
        order = order[np.argsort(-self.counts[order].sum(axis=1), kind="stable")]
        total = np.maximum(self.counts.sum(axis=0), 1)
        target = shares[wanted, None] * total  # (P, K) clips each part should hold
        held = np.zeros_like(target)
        weight = 1 / (target * total)
        part = np.empty(self.count, int)
        for group in order:
            add = self.counts[group]
            # Change of the squared deviation from the target, relative to the target.
            cost = ((2 * (held - target) + add) * add * weight).sum(axis=1)
            best = int(np.argmin(cost))
            held[best] += add
            part[group] = best
        self._fill_empty(part, len(wanted))
        return wanted[part]

    def _fill_empty(self, part: np.ndarray, parts: int) -> None:
        sizes = self.counts.sum(axis=1)
        for empty in sorted(set(range(parts)) - set(part.tolist())):
            members = np.bincount(part, minlength=parts)
            donors = np.flatnonzero(members[part] > 1)
            # From the fullest part, its smallest group.
            fullest = part[donors[np.argmax(np.bincount(part, sizes, parts)[part[donors]])]]
            among = donors[part[donors] == fullest]
            part[among[np.argmin(sizes[among])]] = empty


def _groups(table: pl.DataFrame, name: str, stratify: bool, key: str = "group") -> Groups:
    if name not in SCHEMA:
        raise ParamsError(f"protocol.{key}: {name} is not a manifest column. Known: {', '.join(SCHEMA)}.")
    column = table[name].cast(pl.String)
    if column.null_count() == table.height:
        raise CorpusError(
            f"protocol.{key}: no clip of this corpus has a {name}. Choose another column (`id` splits clip by clip)."
        )
    labels = table.select(
        # The prefix keeps a clip id from meeting a group of the same name.
        pl.when(column.is_null()).then("clip " + table["id"]).otherwise("group " + column).alias("group"),
        pl.col("emotion").fill_null("").alias("class"),
    )
    names, index = np.unique(labels["group"].to_numpy(), return_inverse=True)
    classes, label = (
        np.unique(labels["class"].to_numpy(), return_inverse=True) if stratify else (np.zeros(1), np.zeros(table.height, int))
    )
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (index, label), 1)
    return Groups(counts, index, name)


def _official(table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    found = table["split"].unique().to_list()
    if None in found:
        example = table.filter(pl.col("split").is_null())["id"][0]
        raise CorpusError(
            f"protocol.kind official: {table['split'].null_count()} clips have no official split "
            f"(e.g. {example}). Choose protocol.kind split, kfold or leave_one_out."
        )
    for role in ("train", "test"):
        if role not in found:
            raise CorpusError(
                f"protocol.kind official: the corpus folder holds no {role} clips. Add that split, or "
                "choose protocol.kind split, kfold or leave_one_out."
            )
    roles = table["split"].to_numpy().astype(object)
    if "val" not in found and protocol.val > 0:
        name, key = (protocol.group, "group") if protocol.val_group is None else (protocol.val_group, "val_group")
        groups = _groups(table.filter(pl.col("split") == "train"), name, protocol.stratify, key)
        part = _draw_val(groups, table.height, protocol, np.random.default_rng(protocol.seed))
        roles[roles == "train"] = np.asarray(("train", "val"), dtype=object)[part[groups.index]]
    return _table(table["id"], [(0, roles)])


def _table(ids: pl.Series, parts: list[tuple[int, np.ndarray]]) -> pl.DataFrame:
    return pl.concat(
        [pl.DataFrame({"id": ids, "fold": [fold] * len(ids), "role": role.astype(str)}, schema=FOLDS) for fold, role in parts]
    )

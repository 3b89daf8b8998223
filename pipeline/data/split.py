"""Protocols: which clips are trained on, selected on and tested on, fold by fold.

Every protocol gives one table `data/folds.parquet` (`id, fold, role, name`); one split is fold 0.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.errors import CorpusError, ParamsError, one_of
from pipeline.params import Protocol
from pipeline.storage.tables import SCHEMA

from .coverage import check_sides
from .fold_file import ROLES, read_folds

#: Columns of `data/folds.parquet`, beside `name`, which says to people which fold it is: who is held out, or what a file of
#: folds calls it.
FOLDS: dict[str, pl.DataType] = {"id": pl.String(), "fold": pl.Int32(), "role": pl.String()}

#: Rows of `data/folds.parquet` beyond which leave-one-out is a mistake (a column of clip ids, say).
MAX_ROWS = 5_000_000


def is_single(folds: pl.DataFrame) -> bool:
    """Whether there is one split (test truth is held out for good) rather than folds."""
    return folds["fold"].n_unique() == 1


def make_folds(table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """The folds of `protocol` over the clips of `table` (manifest columns), as a table of `FOLDS` and `name`.

    Clips whose group is null are groups of their own; in `leave_one_out` they are one group, for a fold of a single clip says
    nothing. Shares `val` and `test` are of all clips, in `cross` of the source's. Turns that are no targets are in no fold.

    Raises:
        ParamsError: the group column does not exist, or the protocol cannot be had.
        CorpusError: the official split is absent, there are too few groups, or a fold trains on nothing or tests nothing.
        LeakageError: a file puts one group into two folds.
    """
    table = table.filter(pl.col("target").fill_null(True))
    if protocol.kind in ("official", "split"):
        role = _official(table, protocol) if protocol.kind == "official" else _split(table, protocol)
        folds = _table(table["id"], [(protocol.kind, role)])
    else:
        makers = {"kfold": _kfold, "leave_one_out": _leave_one_out, "cross": _cross, "file": read_folds}
        made = makers[protocol.kind](table, protocol)
        folds = _table(table["id"], [(name, _nest(table, role, protocol, fold)) for fold, (name, role) in enumerate(made)])
    check_sides(table, folds)
    return folds


def _split(table: pl.DataFrame, protocol: Protocol) -> np.ndarray:
    if protocol.test <= 0 or protocol.val + protocol.test >= 1:
        raise ParamsError(
            "protocol.val + protocol.test must leave clips to train on, and test must be above 0 "
            f"(got val {protocol.val}, test {protocol.test})."
        )
    groups = _groups(table, protocol.group, protocol.stratify)
    shares = np.asarray([1 - protocol.val - protocol.test, protocol.val, protocol.test])
    return groups.partition(shares, np.random.default_rng(protocol.seed))[groups.index]


def _kfold(table: pl.DataFrame, protocol: Protocol) -> list[tuple[str, np.ndarray]]:
    groups = _groups(table, protocol.group, protocol.stratify)
    part = groups.partition(np.full(protocol.folds, 1 / protocol.folds), np.random.default_rng(protocol.seed))[groups.index]
    return [(f"fold {fold}", np.where(part == fold, 2, 0)) for fold in range(protocol.folds)]


def _leave_one_out(table: pl.DataFrame, protocol: Protocol) -> list[tuple[str, np.ndarray]]:
    _groups(table, protocol.group, protocol.stratify)  # is there such a column, and anything in it?
    column = table[protocol.group].cast(pl.String)
    names = sorted(set(column.drop_nulls()))
    lone = column.null_count()
    if len(names) + (lone > 0) < 2:
        raise CorpusError(f"protocol.group: column {protocol.group} has one group; leave_one_out needs two.")
    if len(names) * table.height > MAX_ROWS:
        raise ParamsError(
            f"protocol.group: column {protocol.group} has {len(names)} groups over {table.height} clips; "
            "leave_one_out would make too many folds. Use protocol.kind kfold."
        )
    given = column.to_numpy()
    made = [(name, np.where(given == name, 2, 0)) for name in names]
    return made + ([(f"no {protocol.group}", np.where(column.is_null().to_numpy(), 2, 0))] if lone else [])


def _cross(table: pl.DataFrame, protocol: Protocol) -> list[tuple[str, np.ndarray]]:
    """From each corpus (or the one `protocol.source`) to all the others."""
    corpora = sorted(table["corpus"].drop_nulls().unique())
    if len(corpora) < 2:
        raise CorpusError(
            f"protocol.kind cross needs two corpora; there is {', '.join(corpora) or 'none'}. See docs/corpora/joined.md."
        )
    if protocol.source is not None and protocol.source not in corpora:
        raise one_of("corpus in protocol.source", protocol.source, corpora)
    # A clip of no corpus is on neither side.
    given, elsewhere = table["corpus"].to_numpy(), np.where(table["corpus"].is_null().to_numpy(), -1, 2)
    return [
        (f"{source} → {', '.join(name for name in corpora if name != source)}", np.where(given == source, 0, elsewhere))
        for source in corpora
        if protocol.source in (None, source)
    ]


def _nest(table: pl.DataFrame, role: np.ndarray, protocol: Protocol, fold: int) -> np.ndarray:
    """The roles (N,) of one fold with validation drawn from its training clips, where it has none yet."""
    train = role == 0
    if protocol.val <= 0 or (role == 1).any() or not train.any() or not (role == 2).any():
        return role
    by = protocol.val_group or ("speaker" if protocol.kind == "cross" else protocol.group)
    groups = _groups(table.filter(train), by, protocol.stratify, "group" if protocol.val_group is None else "val_group")
    clips = int(train.sum() if protocol.kind == "cross" else (role >= 0).sum())
    nested = role.copy()
    nested[train] = _draw_val(groups, clips, protocol, np.random.default_rng([protocol.seed, fold]))[groups.index]
    return nested


def _draw_val(groups: Groups, clips: int, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """(G,) 1 for the groups of validation, 0 for those trained on; `val` is a share of `clips`."""
    share = min(0.5, protocol.val * clips / max(1, groups.size))
    return groups.partition(np.asarray([1 - share, share]), rng)


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

    def partition(self, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(G,) part of each group, parts near `shares` of every class (greedy, largest group first).

        Raises:
            CorpusError: there are fewer groups than parts with a share.
        """
        wanted = np.flatnonzero(shares > 0)
        if self.count < len(wanted):
            raise CorpusError(
                f"protocol.group: column {self.column} has {self.count} groups, {len(wanted)} are "
                "needed. Choose another protocol.group or protocol.val_group (`id` goes clip by clip), or fewer folds."
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
        # Of several corpora each is spread over the parts by itself.
        pl.concat_str(pl.col("corpus").fill_null(""), pl.col("emotion").fill_null(""), separator="\0").alias("class"),
    )
    names, index = np.unique(labels["group"].to_numpy(), return_inverse=True)
    classes, label = (
        np.unique(labels["class"].to_numpy(), return_inverse=True) if stratify else (np.zeros(1), np.zeros(table.height, int))
    )
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (index, label), 1)
    return Groups(counts, index, name)


def _official(table: pl.DataFrame, protocol: Protocol) -> np.ndarray:
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
    roles = np.array([ROLES.index(name) for name in table["split"]])
    if "val" not in found and protocol.val > 0:
        name, key = (protocol.group, "group") if protocol.val_group is None else (protocol.val_group, "val_group")
        groups = _groups(table.filter(pl.col("split") == "train"), name, protocol.stratify, key)
        roles[roles == 0] = _draw_val(groups, table.height, protocol, np.random.default_rng(protocol.seed))[groups.index]
    return roles


def _table(ids: pl.Series, parts: list[tuple[str, np.ndarray]]) -> pl.DataFrame:
    """The rows of all folds, (name, (N,) place in `ROLES`); clips at -1 have none."""
    names = np.array(ROLES)
    return pl.concat(
        pl.DataFrame({"id": ids, "fold": [fold] * len(ids), "role": names[role]}, schema=FOLDS)
        .with_columns(name=pl.lit(name))
        .filter(pl.Series(role >= 0))
        for fold, (name, role) in enumerate(parts)
    )

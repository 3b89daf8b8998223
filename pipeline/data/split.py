"""Protocols: which clips are trained on, selected on and tested on, fold by fold.

Every protocol gives one table `data/folds.parquet` (`id, fold, role, name, part`); one split is fold 0. `part` numbers the
validation parts that seeds may take in turn, see `_number_parts`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.errors import CorpusError, ParamsError, one_of
from pipeline.params import Protocol

from .coverage import check_sides
from .fold_file import ROLES, read_folds
from .groups import Groups, group_clips

#: Columns of `data/folds.parquet`, beside `part` and `name`, which says to people which fold it is: who is held out, or what a
#: file of folds calls it.
FOLDS: dict[str, pl.DataType] = {"id": pl.String(), "fold": pl.Int32(), "role": pl.String()}

#: Rows of `data/folds.parquet` beyond which leave-one-out is a mistake (a column of clip ids, say).
MAX_ROWS = 5_000_000


def is_single(folds: pl.DataFrame) -> bool:
    """Whether there is one split (test truth is held out for good) rather than folds."""
    return folds["fold"].n_unique() == 1


def make_folds(table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """The folds of `protocol` over the clips of `table` (manifest columns), as a table of `FOLDS`, `name` and `part` (Int32).

    Clips whose group is null are groups of their own; in `leave_one_out` they are one group, for a fold of a single clip says
    nothing. Shares `val` and `test` are of all clips, in `cross` of the source's. Turns that are no targets are in no fold.

    Raises:
        ParamsError: the group column does not exist, or the protocol cannot be had.
        CorpusError: the official split is absent, there are too few groups, or a fold trains on nothing or tests nothing.
        LeakageError: a file puts one group into two folds.
    """
    table = table.filter(pl.col("target").fill_null(True))
    if protocol.kind == "none":  # all is there to be looked at, and what features are normalised by
        return _table(table["id"], [("none", np.zeros(table.height, int))]).with_columns(part=pl.lit(None, pl.Int32))
    made: list[tuple[str, np.ndarray]]
    if protocol.kind in ("official", "split"):
        role = _official(table, protocol) if protocol.kind == "official" else _split(table, protocol)
        made = [(protocol.kind, role)]
        folds = _table(table["id"], made)
    else:
        makers = {"kfold": _kfold, "leave_one_out": _leave_one_out, "cross": _cross, "file": read_folds}
        made = makers[protocol.kind](table, protocol)
        folds = _table(table["id"], [(name, _nest(table, role, protocol, fold)) for fold, (name, role) in enumerate(made)])
    check_sides(table, folds)
    # Validation that somebody else has named is not taken in turn with other clips.
    own = (table["split"] == "val").any() if protocol.kind == "official" else protocol.kind == "file" and _has_val(made)
    return folds.with_columns(part=pl.lit(None, pl.Int32)) if own else _number_parts(folds, table, protocol)


def _has_val(made: list[tuple[str, np.ndarray]]) -> bool:
    return any((role == 1).any() for _, role in made)


def _split(table: pl.DataFrame, protocol: Protocol) -> np.ndarray:
    if protocol.test <= 0 or protocol.val + protocol.test >= 1:
        raise ParamsError(
            "protocol.val + protocol.test must leave clips to train on, and test must be above 0 "
            f"(got val {protocol.val}, test {protocol.test})."
        )
    groups = group_clips(table, protocol.group, protocol.stratify)
    shares = np.asarray([1 - protocol.val - protocol.test, protocol.val, protocol.test])
    return groups.partition(shares, np.random.default_rng(protocol.seed))[groups.index]


def _kfold(table: pl.DataFrame, protocol: Protocol) -> list[tuple[str, np.ndarray]]:
    groups = group_clips(table, protocol.group, protocol.stratify)
    part = groups.partition(np.full(protocol.folds, 1 / protocol.folds), np.random.default_rng(protocol.seed))[groups.index]
    return [(f"fold {fold}", np.where(part == fold, 2, 0)) for fold in range(protocol.folds)]


def _leave_one_out(table: pl.DataFrame, protocol: Protocol) -> list[tuple[str, np.ndarray]]:
    group_clips(table, protocol.group, protocol.stratify)  # is there such a column, and anything in it?
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
    name, key = _choose_group(protocol)
    groups = group_clips(table.filter(train), name, protocol.stratify, key)
    clips = int(train.sum() if protocol.kind == "cross" else (role >= 0).sum())
    nested = role.copy()
    nested[train] = _draw_val(groups, clips, protocol, np.random.default_rng([protocol.seed, fold]))[groups.index]
    return nested


def _choose_group(protocol: Protocol) -> tuple[str, str]:
    """Column that validation is drawn by, and the parameter that says so."""
    if protocol.val_group is not None:
        return protocol.val_group, "val_group"
    return "speaker" if protocol.kind == "cross" else protocol.group, "group"


def _draw_val(groups: Groups, clips: int, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """(G,) 1 for the groups of validation, 0 for those trained on; `val` is a share of `clips`."""
    share = min(0.5, protocol.val * clips / max(1, groups.size))
    return groups.partition(np.asarray([1 - share, share]), rng)


def _number_parts(folds: pl.DataFrame, table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """`folds` with the validation part of every clip that is not tested on; null where there are none to take in turn.

    Part 0 is validation as it was drawn. The clips trained on make as many others of about its size as they have room and
    groups for, drawn by the same groups and as evenly over the classes.
    """
    folds = folds.with_columns(part=pl.lit(None, pl.Int32))
    if not (folds["role"] == "val").any():
        return folds
    name, key = (protocol.group, "group") if protocol.kind == "split" else _choose_group(protocol)
    groups = group_clips(table, name, protocol.stratify, key)
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
        name, key = _choose_group(protocol)
        groups = group_clips(table.filter(pl.col("split") == "train"), name, protocol.stratify, key)
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

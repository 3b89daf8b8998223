"""Protocol `file`: folds that somebody else has published, or that are one's own, as a table.

A row is a clip (`id`) or a group (the column `protocol.group`, a speaker say), and its `fold`: there it is tested, in all others
trained on. With a third column, `role`, a row says itself what it is in that fold, and is nothing in folds it has no row of.
JSON may also be an object of fold → list of values, or of value → fold.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.errors import CorpusError, LeakageError, ParamsError, one_of
from pipeline.params import Protocol
from pipeline.storage.tables import SCHEMA

log = logging.getLogger(__name__)

#: Codes of a clip in a fold; -1 is none.
ROLES = ("train", "val", "test")
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Listing:
    """What a file says.

    Attributes:
        column: manifest column that its values are of.
        rows: `value`, `fold` and `role` (null: as `fold` alone says), as text.
    """

    column: str
    rows: pl.DataFrame

    @property
    def names(self) -> list[str]:
        """Its folds: by number where all are numbers, else by name."""
        names = self.rows["fold"].unique().to_list()
        return sorted(names, key=(lambda name: (int(name), name)) if all(name.isdecimal() for name in names) else str)


def read_folds(table: pl.DataFrame, protocol: Protocol) -> list[tuple[str, np.ndarray]]:
    """(name, (N,) place in `ROLES` of each clip, -1 none) of each fold of `protocol.file`.

    Raises:
        ParamsError: there is no such file.
        CorpusError: it is no table of folds, or of none of the clips.
        LeakageError: it puts one value into two folds, or into two roles of one.
    """
    listing = read_listing(protocol)
    values = table[listing.column].cast(pl.String)
    known = set(values.drop_nulls())
    strange = sorted(set(listing.rows["value"]) - known)
    if len(strange) == listing.rows["value"].n_unique():
        there = ", ".join(sorted(known)[:3]) or "none"
        raise CorpusError(
            f"protocol.file {protocol.file}: no clip has any {listing.column} it names ({strange[0]}, …); there are {there}, …"
        )
    if strange:
        log.warning("protocol.file names %s of no clip: %s", listing.column, _list(strange))
    named = all(name.isdecimal() for name in listing.names)
    found = []
    for name in listing.names:
        mine = listing.rows.filter(pl.col("fold") == name)
        if mine["role"].null_count():
            tested = set(mine["value"])
            others = set(listing.rows["value"]) - tested
            roles = {value: 2 for value in tested} | dict.fromkeys(others, 0)
        else:
            roles = {value: ROLES.index(role) for value, role in mine.select("value", "role").iter_rows()}
        codes = np.array([roles.get(value, -1) for value in values], np.int64)
        found.append((f"fold {name}" if named else name, codes))
    return found


def find_strangers(table: pl.DataFrame, protocol: Protocol) -> dict[str, str]:
    """For the card: values that the file names and no clip has."""
    listing = read_listing(protocol)
    strange = sorted(set(listing.rows["value"]) - set(table[listing.column].cast(pl.String).drop_nulls()))
    return {f"{listing.column} of protocol.file that no clip has": _list(strange)} if strange else {}


def read_listing(protocol: Protocol) -> Listing:
    """
    Raises:
        ParamsError, CorpusError, LeakageError: see `read_folds`.
    """
    path = Path(protocol.file or "")
    if not protocol.file or path.suffix.lower() not in SUFFIXES:
        raise ParamsError(f"protocol.file: kind file needs a table of folds ({', '.join(SUFFIXES)}; got {protocol.file}).")
    if not path.is_file():
        raise ParamsError(f"protocol.file {path} is not there.")
    try:
        rows = _read_rows(path, protocol.group)
    except (OSError, ValueError, csv.Error, pl.exceptions.PolarsError) as error:
        raise CorpusError(f"protocol.file {path} cannot be read: {' '.join(str(error).split())[:200]}.") from error
    return _check(path, rows, protocol.group)


def _read_rows(path: Path, group: str) -> list[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pl.read_parquet(path).to_dicts()
    text = path.read_text(encoding="utf-8-sig")
    if suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if suffix == ".json":
        found = json.loads(text)
        if isinstance(found, dict):
            pairs = [(v, k) for k, values in found.items() for v in values] if _holds_lists(found) else list(found.items())
            return [{group: value, "fold": fold} for value, fold in pairs]
        return found
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",", strict=True)
    return [{(key or "").strip(): value for key, value in row.items()} for row in rows]


def _holds_lists(found: dict) -> bool:
    return all(isinstance(values, list) for values in found.values())


def _check(path: Path, rows: Any, group: str) -> Listing:
    where = f"protocol.file {path}"
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise CorpusError(f"{where} holds no rows.")
    if group not in SCHEMA:
        raise one_of("manifest column in protocol.group", group, SCHEMA)
    columns = dict.fromkeys(name for row in rows for name in row)
    column = next((name for name in ("id", group) if name in columns), None)
    if column is None or "fold" not in columns:
        wanted = "`id`" if group == "id" else f"`id` or `{group}` (protocol.group)"
        raise CorpusError(f"{where} has columns {', '.join(columns)}; expected {wanted}, `fold` and, if wanted, `role`.")
    found = []
    for number, row in enumerate(rows, 1):
        value, fold = (_text(row.get(name)) for name in (column, "fold"))
        role = _text(row.get("role")) if "role" in columns else None
        if value is None or fold is None or ("role" in columns and role is None):
            lacking = column if value is None else "fold" if fold is None else "role"
            raise CorpusError(f"{where}, row {number}: no {lacking}.")
        if role is not None and role not in ROLES:
            raise one_of(f"role in row {number} of {path}", role, ROLES, CorpusError)
        found.append({"value": value, "fold": fold, "role": role})
    table = pl.DataFrame(found, schema={"value": pl.String, "fold": pl.String, "role": pl.String}).unique(maintain_order=True)
    _part(where, table, column)
    return Listing(column, table)


def _part(where: str, table: pl.DataFrame, column: str) -> None:
    """
    Raises:
        LeakageError: one value in two folds, or in two roles of one.
        CorpusError: a single fold without roles, which leaves nothing to train on.
    """
    by_role = table["role"].null_count() == 0
    keys = ["value", "fold"] if by_role else ["value"]
    twice = table.filter(pl.struct(keys).is_duplicated()).sort("value", "fold", "role", nulls_last=True)
    if twice.height:
        first = table.filter(pl.all_horizontal(pl.col(key) == twice[key][0] for key in keys))
        both = " and ".join(first["role" if by_role else "fold"][:2])
        place = f"both {both} in fold {twice['fold'][0]}" if by_role else f"in folds {both}"
        raise LeakageError(f"{where}: {column} {twice['value'][0]} is {place}; it may be in one alone.")
    if not by_role and table["fold"].n_unique() < 2:
        raise CorpusError(
            f"{where} has one fold, {table['fold'][0]}: nothing is left to train on. Add a column `role`, or folds."
        )


def _text(value: object) -> str | None:
    """A cell as the manifest spells it; None of nothing."""
    if value is None or isinstance(value, list | dict | bool):
        return None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None if value != value else value
    return str(value).strip() or None


def _list(values: list[str], most: int = 5) -> str:
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")

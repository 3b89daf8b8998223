"""Tables of ready-made features: csv, tsv, arff and parquet, one or several rows per clip."""

from __future__ import annotations

import csv
import fnmatch
import re
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.errors import ParamsError, WeightsError, one_of

from . import toolkits
from .file_layout import IDS, Features, Layout, Rows

#: How tables spell that there is no value.
_NONE = ("", "NA", "N/A", "n/a", "nan", "NaN", "None", "null", "NULL", "-", "?")
_ATTRIBUTE = r"""(?i)@attribute\s+(?:'([^']*)'|"([^"]*)"|(\S+))\s"""
#: One day and a clock, as pandas writes spans of time.
_SPAN = r"^(\d+) days (\d+):(\d\d):(\d\d(?:\.\d+)?)$"


def read(path: Path) -> pl.DataFrame:
    """The table; text stays text, so that an id such as 007 does not become the number 7."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pl.read_parquet(path)
    if suffix == ".arff":
        return _read_arff(path)
    separator = "\t" if suffix == ".tsv" else _find_separator(path)
    table = pl.read_csv(path, separator=separator, infer_schema=False)
    table = table.rename({name: name.strip() for name in table.columns}).with_columns(pl.all().str.strip_chars())
    if separator == ",":
        return table
    # Where columns part at another mark, a comma may be the decimal one.
    comma = [name for name in table.columns if not _is_numeric(table[name]) and _is_numeric(_pointed(table[name]))]
    return table.with_columns(_pointed(table[name]) for name in comma)


def _find_separator(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        head = file.readline()
    return max((",", ";", "\t"), key=head.count)


def _pointed(column: pl.Series) -> pl.Series:
    return column.str.replace(",", ".", literal=True)


def _read_arff(path: Path) -> pl.DataFrame:
    """An openSMILE (Weka) file: a line `@attribute NAME KIND` per column, then `@data` and rows with commas."""
    names: list[str] = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        for line in file:
            if found := re.match(_ATTRIBUTE, line):
                names.append(next(name for name in found.groups() if name is not None))
            elif line.strip().lower() == "@data":
                break
        rows = [row for row in csv.reader(file, quotechar="'", skipinitialspace=True) if row and not row[0].startswith("%")]
    if wrong := next((row for row in rows if len(row) != len(names)), None):
        raise WeightsError(f"{path} has {len(names)} attributes and a row of {len(wrong)} values ({wrong[0]}).")
    return pl.DataFrame(
        {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}, schema=dict.fromkeys(names, pl.String)
    )


def of_clip(path: Path, layout: Layout) -> Rows:
    """All rows of a table that is one clip's own."""
    table = toolkits.choose_face(read(path))
    return _matrix(path, table, _numeric(path, table, layout, None)), _times(path, table, layout)


def by_clip(path: Path, layout: Layout) -> Features:
    """The rows of a table, gathered by its id column.

    Raises:
        ParamsError: a column that is not there or holds no numbers.
        WeightsError: no column holds numbers.
    """
    table = read(path)
    column = layout.id_column or next((name for name in IDS if name in table.columns), table.columns[0])
    if column not in table.columns:
        raise one_of(f"column of {path.name}", column, table.columns)
    names = _numeric(path, table, layout, column)
    values, times = _matrix(path, table, names), _times(path, table, layout)
    places: dict[str, list[int]] = {}
    for position, clip in enumerate(table[column].cast(pl.String).to_list()):
        if clip is not None:
            places.setdefault(clip.strip().strip("'"), []).append(position)
    if times is not None and not layout.start_column and all(len(at) == 1 for at in places.values()):
        times = None  # one row is the whole clip, whatever its clock says

    def rows(at: list[int]) -> Rows:
        return values[at], None if times is None else times[at]

    left = sorted(toolkits.no_features(table.columns) - {column, *names})
    return Features({clip: partial(rows, at) for clip, at in places.items()}, names, left)


def _numeric(path: Path, table: pl.DataFrame, layout: Layout, ids: str | None) -> list[str]:
    apart = {ids, layout.start_column, layout.end_column, *toolkits.no_features(table.columns)}
    names = [name for name in table.columns if name not in apart]
    if layout.columns:
        names = []
        for asked in layout.columns:
            found = [name for name in table.columns if fnmatch.fnmatchcase(name, asked)]
            if not found:
                raise one_of(f"column of {path.name}", asked, table.columns)
            names += [name for name in found if name not in names]
    lists = [name for name in names if table[name].dtype in (pl.List, pl.Array)]
    if len(lists) > 1 or (lists and layout.columns and len(names) > 1):
        raise ParamsError(f"{path} has list columns {', '.join(lists)}; name one of them alone in options.columns.")
    if lists:
        return lists
    fit = [name for name in names if _is_numeric(table[name])]
    if layout.columns and len(fit) < len(names):
        raise ParamsError(f"{path}: column {next(n for n in names if n not in fit)!r} does not hold numbers.")
    if not fit:
        raise WeightsError(f"{path} has no column of numbers beside {ids!r}.")
    return fit


def _is_numeric(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return column.dtype.is_numeric()
    given = _given(column)
    return given.cast(pl.Float64, strict=False).null_count() == given.null_count() < len(given)


def _given(column: pl.Series) -> pl.Series:
    return column.replace(_NONE, [None] * len(_NONE))


def _matrix(path: Path, table: pl.DataFrame, names: list[str]) -> np.ndarray:
    if table[names[0]].dtype in (pl.List, pl.Array):
        vectors = table[names[0]].to_list()
        widths = {len(vector) for vector in vectors if vector is not None}
        if len(widths) != 1:
            raise WeightsError(f"{path}: the vectors of column {names[0]!r} differ in length ({sorted(widths)[:4]}).")
        none = [np.nan] * widths.pop()
        return np.array([none if vector is None else vector for vector in vectors], np.float32)
    values = table.select(pl.col(names).cast(pl.Float32, strict=False)).fill_null(float("nan")).to_numpy().copy()
    if valid := toolkits.find(table.columns).valid:
        # A row that shows no face holds numbers all the same.
        values[table[valid].cast(pl.Float64, strict=False).fill_null(0).to_numpy() == 0] = np.nan
    return values


def _times(path: Path, table: pl.DataFrame, layout: Layout) -> np.ndarray | None:
    start, end = layout.start_column, layout.end_column
    for name in (start, end):
        if name and name not in table.columns:
            raise one_of(f"column of {path.name}", name, table.columns)
    if not start:
        kit = toolkits.find(table.columns)
        start, end = kit.start, kit.end
    if not start:
        return None
    first = _seconds(path, table[start])
    return np.stack([first, _seconds(path, table[end]) if end else first], 1)


def _seconds(path: Path, column: pl.Series) -> np.ndarray:
    """(T,) seconds of numbers, or of spans of time as pandas writes them (`0 days 00:00:01.5`)."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() and column.dtype == pl.String:
        clock = [column.str.extract(_SPAN, i).cast(pl.Float64) for i in (1, 2, 3, 4)]
        numbers = numbers.fill_null(clock[0] * 86400 + clock[1] * 3600 + clock[2] * 60 + clock[3])
    if numbers.null_count():
        raise WeightsError(f"{path}: column {column.name!r} does not hold seconds in every row.")
    return numbers.to_numpy()

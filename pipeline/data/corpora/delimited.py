"""Rows of CSV and TSV as people write them: quoted by the rules, or with quotes that are mere text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import CorpusError

#: A cell of more lines than this is an open quote.
MOST_LINES = 200


def read_rows(text: str, separator: str, path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(column names, (number of its last line, cells) of each row); cells stripped, as many as names, blank rows left out.

    A quote is read by the rules of CSV where they hold: a cell it opens may go over lines. Where a row is whole without
    them, and with them would swallow the rows below it or be damaged, its quotes are text. Columns without a name are
    left out when all their cells are empty, as spreadsheets leave them behind.

    Raises:
        CorpusError: a name twice, a cell beyond the columns or under none, a quote that never ends; file and line.
    """
    lines = list(io.StringIO(text, newline=""))
    records = _records(lines, separator, path)
    try:
        _, head = next(records)
    except StopIteration:
        return [], []
    names = [name.strip() for name in head]
    named = [name for name in names if name]
    if len(set(named)) != len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise CorpusError(f"{path}: column {twice!r} occurs twice.")
    rows = []
    for number, cells in records:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if any(cells[len(names) :]):
            raise CorpusError(f"{path}, line {number}: more cells than the {len(names)} columns.")
        cells += [""] * (len(names) - len(cells))
        for place, name in enumerate(names):
            if not name and cells[place]:
                raise CorpusError(f"{path}, line {number}: {cells[place]!r} stands in column {place + 1}, which has no name.")
        rows.append((number, [cell for cell, name in zip(cells, names, strict=False) if name]))
    return named, rows


def _records(lines: list[str], separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    width, at = 0, 0
    while at < len(lines):
        cells, count = _record(lines, at, separator, width, path)
        at += count
        if cells:
            width = width or len(cells)
            yield at, cells


def _record(lines: list[str], at: int, separator: str, width: int, path: Path) -> tuple[list[str], int]:
    """Cells of the row that begins at a line, and how many lines it takes."""
    failure = ""
    for count in range(1, min(MOST_LINES, len(lines) - at) + 1):
        if count > 1:
            plain = _split(lines[at + count - 1], separator)
            # A line of its own inside a cell that happens to have the separators of a row is rare where they are many.
            if len(plain) == width and (separator == "\t" or width > 3):
                failure = "a quote opens a cell that swallows the next row"
                break
            if '"' not in lines[at + count - 1]:
                continue
        try:
            (cells,) = list(csv.reader(["".join(lines[at : at + count])], delimiter=separator, strict=True)) or [[]]
        except csv.Error as error:
            failure = str(error)
            if "unexpected end of data" not in failure:
                break
            continue
        return cells, count
    plain = _split(lines[at], separator)
    # A comma's file that ends inside a quote has been cut short; a tab's has no use for quotes.
    if width and (len(plain) <= width if separator == "\t" else len(plain) == width and "unexpected end" not in failure):
        return plain, 1
    raise CorpusError(f"{path}, line {at + 1}: {failure}.")


def _split(line: str, separator: str) -> list[str]:
    return line.rstrip("\r\n").split(separator)

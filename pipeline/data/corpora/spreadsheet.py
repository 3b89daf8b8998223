"""Rows of XLSX: values as they were calculated, merged cells filled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from pipeline.errors import CorpusError

from . import cells

#: What damage in zip members, XML and dates raises.
_DAMAGE = (zipfile.BadZipFile, zlib.error, LookupError, ValueError, TypeError, AttributeError, OSError, EOFError, SyntaxError)
#: Bytes that the parts of a spreadsheet may unpack to.
MOST = 1 << 30


def read_rows(path: Path, sheet: str | None = None) -> list[tuple[int, dict[str, str]]]:
    """(line, row) of a sheet, the first by default; cells are text, blank rows left out.

    Every cell of a merged range says what its first one says. A formula whose value was never calculated (by a program
    that writes spreadsheets without being one) is `cells.UNCALCULATED`.

    Raises:
        CorpusError: it is no spreadsheet or has no such sheet; a name occurs twice; a cell is under none.
    """
    if not path.exists():
        raise CorpusError(f"{path} is not there.")
    values, formulas = (_grid(path, sheet, formulas) for formulas in (False, True))
    lines = [
        [cells.UNCALCULATED if value is None and formula is not None else value for value, formula in zip(*pair, strict=True)]
        for pair in zip(values, formulas, strict=True)
    ]
    if not lines:
        return []
    names = [cells.plain(name, f"{path}, line 1") for name in lines[0]]
    named = [name for name in names if name]
    if len(set(named)) != len(named):
        raise CorpusError(f"{path}: column {next(n for n in named if named.count(n) > 1)!r} occurs twice.")
    rows = []
    for at, line in enumerate(lines[1:], 2):
        row = [cells.plain(cell, f"{path}, line {at}") for cell in line]
        if stray := next((cell for cell, name in zip(row, names, strict=True) if cell and not name), None):
            raise CorpusError(f"{path}, line {at}: {stray!r} stands in a column without a name.")
        if any(row):
            rows.append((at, {name: cell for name, cell in zip(names, row, strict=True) if name}))
    return rows


def _grid(path: Path, sheet: str | None, formulas: bool) -> list[list[Any]]:
    """Cells of a sheet, row by row, all of the same width."""
    import openpyxl

    try:
        with zipfile.ZipFile(path) as pack:
            if sum(part.file_size for part in pack.infolist()) > MOST:
                raise CorpusError(f"{path} unpacks to more than {MOST >> 20} MB, which no table of clips does. Save it as CSV.")
        book = openpyxl.load_workbook(path, data_only=not formulas)
    # XML, dates and zip members can all be damaged, each with an error of its own.
    except (
        zipfile.BadZipFile,
        zlib.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        SyntaxError,
    ) as error:
        raise CorpusError(f"{path} is not a spreadsheet ({' '.join(str(error).split())}).") from error
    if sheet is not None and sheet not in book.sheetnames:
        raise CorpusError(f"{path} has no sheet {sheet!r}. Sheets: {', '.join(book.sheetnames)}.")
    page = book[sheet or book.sheetnames[0]]
    if not hasattr(page, "iter_rows"):
        raise CorpusError(f"{path}: {page.title!r} is a chart, not a table. Sheets: {', '.join(book.sheetnames)}.")
    lines = [list(line) for line in page.iter_rows(values_only=True)]
    for area in page.merged_cells.ranges:
        first = lines[area.min_row - 1][area.min_col - 1]
        for line in lines[area.min_row - 1 : area.max_row]:
            line[area.min_col - 1 : area.max_col] = [first] * (area.max_col - area.min_col + 1)
    return lines

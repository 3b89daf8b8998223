"""Reading annotation tables as they are distributed: encodings, separators, spreadsheets, line numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import CorpusError

from . import cells
from .delimited import read_rows

#: UTF-8 read as Windows-1252 and saved again: the damage of many transcripts.
_MOJIBAKE = ("â€", "Ã", "Â", "ï»¿")


def text_of(path: Path) -> str:
    """The text of a file in UTF-8 (with or without mark), UTF-16 with mark, else Windows-1252.

    Raises:
        CorpusError: the file is absent or holds NUL bytes.
    """
    if not path.is_file():
        raise CorpusError(f"{path} is not there.")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Line by line: one damaged line does not turn the accents of all others into noise.
        text = "".join(_line(line) for line in data.splitlines(keepends=True))
    if "\0" in text:
        raise CorpusError(f"{path} is not a text file (it holds NUL bytes).")
    return text


def _line(line: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1")


def mend(text: str) -> str:
    """Undo UTF-8 read as Windows-1252, and turn Windows-1252 control codes into their characters.

    A text without the signs of that damage comes back as it is.
    """
    if any("\x80" <= sign <= "\x9f" for sign in text):
        text = "".join(bytes([ord(s)]).decode("cp1252", "ignore") if "\x80" <= s <= "\x9f" else s for s in text)
    for _ in range(2):
        if not any(sign in text for sign in _MOJIBAKE):
            break
        try:
            text = text.encode("cp1252").decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError):
            break
    return text


def rows_of(path: Path, required: Iterable[str] = (), sheet: str | None = None) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV, TSV, JSONL, JSON or XLSX table; every value is a stripped string.

    Column names are stripped; a cell that is empty or only blanks is "".

    Raises:
        CorpusError: the file or a required column is absent, or the syntax is damaged (file and line).
    """
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        rows = _jsonl(path)
    elif suffix == ".json":
        rows = _json(path)
    elif suffix in (".xlsx", ".xlsm"):
        rows = _xlsx(path, sheet)
    else:
        rows = _csv(path, "\t" if suffix == ".tsv" else None)
    names = dict.fromkeys(name for _, row in rows for name in row)
    missing = [name for name in required if name not in names]
    if missing and rows:
        raise CorpusError(f"{path}: column {missing[0]!r} is missing. Columns: {', '.join(names)}.")
    return rows


def _csv(path: Path, separator: str | None) -> list[tuple[int, dict[str, str]]]:
    text = text_of(path)
    if separator is None:
        head = text.split("\n", 1)[0]
        separator = max(",;\t", key=head.count)
    names, rows = read_rows(text, separator, path)
    return [(number, dict(zip(names, cells, strict=True))) for number, cells in rows]


def _jsonl(path: Path) -> list[tuple[int, dict[str, str]]]:
    result = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            result.append((number, _plain(load_json(line, f"{path}, line {number}"), f"{path}, line {number}")))
    return result


def _json(path: Path) -> list[tuple[int, dict[str, str]]]:
    value = load_json(text_of(path), str(path))
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise CorpusError(f"{path} is not a JSON list of records.")
    return [(number, _plain(item, f"{path}, record {number}")) for number, item in enumerate(value, 1)]


def _xlsx(path: Path, sheet: str | None) -> list[tuple[int, dict[str, str]]]:
    import zipfile

    import openpyxl

    if not path.is_file():
        raise CorpusError(f"{path} is not there.")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise CorpusError(f"{path} is not a spreadsheet ({error}).") from error
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise CorpusError(f"{path} has no sheet {sheet!r}. Sheets: {', '.join(book.sheetnames)}.")
        lines = list(book[sheet or book.sheetnames[0]].iter_rows(values_only=True))
    finally:
        book.close()
    if not lines:
        return []
    names = [_cell(name) for name in lines[0]]
    named = [name for name in names if name]
    if len(set(named)) != len(named):
        raise CorpusError(f"{path}: column {next(n for n in named if named.count(n) > 1)!r} occurs twice.")
    result = []
    for at, line in enumerate(lines[1:], 2):
        cells = [_cell(cell) for cell in line]
        if stray := next((cell for cell, name in zip(cells, names, strict=False) if cell and not name), None):
            raise CorpusError(f"{path}, line {at}: {stray!r} stands in a column without a name.")
        if any(cells):
            result.append((at, {name: cell for name, cell in zip(names, cells, strict=False) if name}))
    return result


def load_json(text: str, where: str) -> object:
    """Parse JSON.

    Raises:
        CorpusError: it is not JSON; the line says where.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CorpusError(f"{where}: not valid JSON ({error}).") from error


def _plain(item: object, where: str) -> dict[str, str]:
    if not isinstance(item, dict):
        raise CorpusError(f"{where}: not a record but {type(item).__name__}.")
    return {str(key).strip(): _cell(value) for key, value in item.items()}


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip()


#: See `cells`.
number = cells.number


def rescale(value: float | None, low: float, high: float) -> float | None:
    """From [low, high] to [-1, 1]."""
    return None if value is None else round(2 * (value - low) / (high - low) - 1, 9)


def labels(**extra: object) -> str | None:
    """The manifest's `labels` column: extra labels as JSON, those that are None left out."""
    known = {name: value for name, value in extra.items() if value is not None}
    return json.dumps(known, sort_keys=True, ensure_ascii=False) if known else None

"""Reading annotation tables as they are distributed: encodings, separators, spreadsheets, line numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.errors import CorpusError

from . import cells, spreadsheet
from .delimited import read_rows
from .encoding import decode

#: UTF-8 read as Windows-1252 and saved again: the damage of many transcripts.
_MOJIBAKE = ("â€", "Ã", "Â", "ï»¿")
_SEPARATOR = re.compile(r"sep=(.)")


def text_of(path: Path, encoding: str | None = None) -> str:
    """The text of a file; see `encoding.decode`.

    Raises:
        CorpusError: the file is absent, cannot be read, or is not text of an encoding that can be told.
    """
    if not path.exists():
        raise CorpusError(f"{path} is not there.")
    if not path.is_file():
        raise CorpusError(f"{path} is not a file.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}).") from error
    text = decode(data, path, encoding)
    if "\0" in text:
        raise CorpusError(f"{path} is not a text file (it holds NUL bytes).")
    return text


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


def rows_of(
    path: Path, required: Iterable[str] = (), sheet: str | None = None, encoding: str | None = None
) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV, TSV, JSONL, JSON, XLSX or Parquet table; every value is a stripped string.

    Column names are stripped; a cell that is empty or only blanks is "".

    Args:
        sheet: of a spreadsheet; null: its first.
        encoding: of text; null: told from the bytes.

    Raises:
        CorpusError: the file or a required column is absent, or the syntax is damaged (file and line).
    """
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        rows = _jsonl(text_of(path, encoding), path)
    elif suffix == ".json":
        rows = _json(text_of(path, encoding), path)
    elif suffix in (".xlsx", ".xlsm"):
        rows = spreadsheet.read_rows(path, sheet)
    elif suffix == ".parquet":
        rows = _parquet(path)
    else:
        rows = _csv(text_of(path, encoding), path, "\t" if suffix == ".tsv" else None)
    names = dict.fromkeys(name for _, row in rows for name in row)
    missing = [name for name in required if name not in names]
    if missing and rows:
        raise CorpusError(f"{path}: column {missing[0]!r} is missing. Columns: {', '.join(names)}.")
    return rows


def _csv(text: str, path: Path, separator: str | None) -> list[tuple[int, dict[str, str]]]:
    head = text.split("\n", 1)[0].rstrip("\r")
    if told := _SEPARATOR.fullmatch(head):
        # Excel's own first line; what stays in its place is blank, so that lines keep their numbers.
        separator, text = told[1], text[len(head) :]
    if separator is None:
        separator = max(",;\t", key=head.count)
    names, rows = read_rows(text, separator, path)
    return [(number, dict(zip(names, cells, strict=True))) for number, cells in rows]


def _jsonl(text: str, path: Path) -> list[tuple[int, dict[str, str]]]:
    result = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            result.append((number, _plain(load_json(line, f"{path}, line {number}"), f"{path}, line {number}")))
    return result


def _parquet(path: Path) -> list[tuple[int, dict[str, str]]]:
    import polars as pl

    if not path.is_file():
        raise CorpusError(f"{path} is not there.")
    try:
        records = pl.read_parquet(path).to_dicts()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CorpusError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}).") from error
    return [(number, _plain(item, f"{path}, row {number}")) for number, item in enumerate(records, 1)]


def _json(text: str, path: Path) -> list[tuple[int, dict[str, str]]]:
    value = load_json(text, str(path))
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise CorpusError(f"{path} is not a JSON list of records.")
    return [(number, _plain(item, f"{path}, record {number}")) for number, item in enumerate(value, 1)]


def load_json(text: str, where: str) -> object:
    """Parse JSON.

    Raises:
        CorpusError: it is not JSON, or a record has a name twice, of which JSON would keep the last; the line says where.
    """
    try:
        return json.loads(text, object_pairs_hook=_record)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not valid JSON ({error}).") from error


def _record(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in seen if seen.count(name) > 1)!r} stands twice in one record")
    return found


def _plain(item: object, where: str) -> dict[str, str]:
    if not isinstance(item, dict):
        raise CorpusError(f"{where}: not a record but {type(item).__name__}.")
    return {str(key).strip(): cells.plain(value, where) for key, value in item.items()}


#: See `cells`.
number = cells.number


def rescale(value: float | None, low: float, high: float) -> float | None:
    """From [low, high] to [-1, 1]."""
    return None if value is None else round(2 * (value - low) / (high - low) - 1, 9)


def labels(**extra: object) -> str | None:
    """The manifest's `labels` column: extra labels as JSON, those that are None left out."""
    known = {name: value for name, value in extra.items() if value is not None}
    return json.dumps(known, sort_keys=True, ensure_ascii=False) if known else None


def name_emotions(cell: str, names: Mapping[str, str], separator: str | None, extra: str | None) -> dict[str, str | None]:
    """`emotion`, the first of a cell's labels, and where it has several all of them among `labels` as `emotions`.

    Args:
        names: label → emotion; empty = as they are. separator: between labels; None = the cell is one. extra: other `labels`.

    Raises:
        LookupError: a label has no name. ValueError: `extra` is no JSON.

    >>> name_emotions("joy; surprise", {}, ";", None)
    {'emotion': 'joy', 'labels': '{"emotions": ["joy", "surprise"]}'}
    """
    found = [part.strip() for part in cell.split(separator)] if separator else [cell]
    found = [label for label in dict.fromkeys(found) if label]
    if names and (unknown := [label for label in found if label not in names]):
        raise LookupError(f"emotion {unknown[0]!r} is not in corpus.options.emotions")
    found = [names.get(label, label) for label in found]
    if len(found) > 1:
        others = json.loads(extra or "{}")
        if not isinstance(others, dict):
            raise ValueError(f"labels {extra!r} are no JSON object")
        extra = labels(**others | {"emotions": found})
    return {"emotion": found[0] if found else None, "labels": extra}

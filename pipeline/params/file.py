"""A file of parameters as plain values, whatever somebody's editor has made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from pipeline.errors import ParamsError

#: Bytes, values and levels beyond which no file of parameters is one: they would fill the memory before any check.
MOST_BYTES, MOST_VALUES, DEEPEST = 1_000_000, 50_000, 50


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ParamsError: the file is absent or unreadable, not UTF-8, not YAML, empty, no mapping, or larger than parameters are.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ParamsError(f"{path} is not there. Run this from the folder that holds params.yaml.") from None
    except OSError as error:
        raise ParamsError(f"{path} cannot be read ({error.strerror}).") from error
    if len(content) > MOST_BYTES:
        raise ParamsError(f"{path} has {len(content):,} bytes, which parameters never have. {_remedy(path)}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ParamsError(f"{path} is not UTF-8 (line {line}). Save it as UTF-8. {_remedy(path)}") from error
    if not text.strip("\ufeff \t\r\n\0"):
        raise ParamsError(f"{path} is empty. {_remedy(path)}")
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {_shorten(error)}") from error
    except RecursionError:
        raise ParamsError(f"{path} is nested too deeply for parameters. {_remedy(path)}") from None
    except (ValueError, OverflowError, TypeError, AttributeError) as error:  # e.g. the date 2026-99-99, a list as a key
        raise ParamsError(f"{path} holds a value that YAML cannot read: {_shorten(error)}") from error
    if not isinstance(values, dict):
        kind = "nothing but comments" if values is None else "a list" if isinstance(values, list) else "a single value"
        raise ParamsError(f"{path} holds {kind}, not parameters by name. {_remedy(path)}")
    _measure(values, path)
    return values


def _measure(values: dict, path: Path) -> None:
    """
    Raises:
        ParamsError: with every alias written out there are too many values or levels.
    """
    waiting: list[tuple[object, int]] = [(values, 1)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            what = (
                "is nested too deeply"
                if depth > DEEPEST
                else f"has more values ({MOST_VALUES:,}, anchors written out) than is right"
            )
            raise ParamsError(f"{path} {what} for parameters. {_remedy(path)}")
        waiting.extend((part, depth + 1) for part in _parts(value))


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value


def _shorten(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if len(said) <= 300 else f"{said[:300]} …"


def _remedy(path: Path) -> str:
    return "`make params` writes it anew." if path.name == "params.yaml" else "Mend it."

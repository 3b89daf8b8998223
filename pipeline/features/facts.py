"""What a library says, remembered: asking may mean importing a deep-learning framework first, for seconds.

An extractor's identity depends on such facts (the vocabulary of a configuration class, the pixels of
a timm tag). They are kept in the user's cache folder, so that a run with nothing to compute imports
nothing. Errors are never remembered.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from typing import Any

from ..atomic import write_text
from . import cache


def remembered(question: str, ask: Callable[[], Any], *, libraries: Sequence[str], about: object) -> Any:
    """`ask()` as JSON values, or what it answered before.

    Args:
        question: names what is asked; another name when `ask` comes to answer otherwise.
        libraries: packages whose versions decide the answer; one that is not installed counts as that.
        about: JSON value, all else that decides it.
    """
    key = {"question": question, "versions": {name: _version(name) for name in libraries}, "about": about}
    memory = cache.root() / "facts" / f"{cache.digest(key)}.json"
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # not asked before
    answer = json.dumps(ask(), ensure_ascii=False)
    try:
        write_text(memory, answer)
    except OSError:
        pass  # a read-only cache folder costs time, nothing else
    return json.loads(answer)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

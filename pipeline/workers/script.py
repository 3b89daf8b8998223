"""Workers do not run the script that uses them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial


def find_home(function: Callable) -> str | None:
    """The module of a function, of a partial one that of what it calls."""
    return getattr(function.func if isinstance(function, partial) else function, "__module__", None)


@contextmanager
def sparing_script(function: Callable) -> Iterator[None]:
    """A process that is started herein does not import `__main__`, unless that is where `function` is.

    Python would run the script again in each, for what may be in it: one without `if __name__ == "__main__":`, as most are that
    use a library, would then start workers in its workers.
    """
    main = sys.modules.get("__main__")
    if main is None or find_home(function) == "__main__":
        yield
        return
    names = ("__spec__", "__file__")
    kept = {name: vars(main)[name] for name in names if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(kept)

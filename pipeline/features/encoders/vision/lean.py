"""timm without torch's compiler, which torchvision imports for the sake of one question that it never asks here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER = ("torch._dynamo", "torch._dynamo.utils")


class _Later(ModuleType):
    """A module whose functions import the true one when they are called."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "disable":  # a decorator: torch has one of its own that waits for the first call
            return _disable

        def call(*args: Any, **kwargs: Any) -> Any:
            _remove()
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return call


def _disable(function: Any = None, recursive: bool = True, **_: Any) -> Any:
    from torch._compile import _disable_dynamo

    return _disable_dynamo(function, recursive)


def _remove() -> None:
    for name in COMPILER:
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """What is imported while the block runs imports the compiler when it calls a function of it, not before.

    Importing it takes longer than many a film. Once it is there, nothing is done.
    """
    import torch  # noqa: F401  it goes first: it may import the compiler itself

    if COMPILER[0] not in sys.modules:
        sys.modules.update({name: _Later(name) for name in COMPILER})
    try:
        yield
    finally:
        _remove()


def import_timm() -> Any:
    """The library."""
    with without_compiler():
        import timm

    return timm

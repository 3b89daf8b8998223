"""What became of a task: a value, or a reason why there is none."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class Done(Generic[K, V]):
    """All went well.

    Attributes:
        key: the task's.
        value: what the function returned.
    """

    key: K
    value: V
    reason: None = None
    detail: str = ""
    ok: Literal[True] = True


@dataclass(frozen=True)
class Failed(Generic[K]):
    """There is no value.

    Attributes:
        key: the task's.
        reason: `timeout`, `crash`, `memory`, `error`, or the `reason` of the exception raised (a `DecodeError` has one).
        detail: one line for people.
    """

    key: K
    reason: str
    detail: str
    value: None = None
    ok: Literal[False] = False


#: Whoever asks for `ok` knows which of the two it is.
Outcome = Done[K, V] | Failed[K]

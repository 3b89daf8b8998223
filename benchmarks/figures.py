"""What a benchmark returns: figures with their targets."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

_COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: what it is, in words.
        value: None when it could not be taken; `note` says why.
        unit: `s`, `MiB`, `clips/s`, `ratio`, ...
        target: `>= 0.9` or `<= 20`, or empty.
        note: how it was taken.
    """

    name: str
    value: float | None
    unit: str
    target: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without target or value."""
        if not self.target or self.value is None:
            return None
        sign, limit = self.target.split()
        return _COMPARE[sign](self.value, float(limit))

    def plain(self) -> dict[str, object]:
        """JSON values."""
        value = None if self.value is None else float(f"{self.value:.4g}")
        return {"name": self.name, "value": value, "unit": self.unit, "target": self.target, "met": self.met, "note": self.note}


def seconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call, by the wall unless `clock` is another."""
    begun = clock()
    function()
    return clock() - begun


def alternate(
    functions: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each in every round, taken in turn, so that other work on the machine meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            taken[name].append(seconds(function, clock))
    return taken


def ratio(above: list[float], below: list[float]) -> float:
    """Median over rounds of one time by the other."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def count_flops(function: Callable[[], object]) -> int:
    """Additions and multiplications of the products and convolutions that a call asks for.

    Attention goes through plain products meanwhile: torch does not count its fused kernels on every device.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()

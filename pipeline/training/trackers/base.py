"""What a tracker is, and the trackers of a run of the stage.

Trackers are told what `history.csv` says, after each run; they decide nothing, and are no part of an identity. All write below
`tracking/` and ask nobody, unless the program's own environment variables say otherwise.
"""

from __future__ import annotations

import importlib.util
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.parts import Parts

#: Where trackers write, below the project.
FOLDER = "tracking"
Row = Mapping[str, object]


class Tracker(ABC):
    """One program.

    Args:
        folder: of its own; of each run it is cleared before the run is told.

    Attributes:
        package: that it needs.
    """

    package: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tell(self, run: str, settings: Mapping[str, object], history: Sequence[Row]) -> None:
        """One finished run.

        Args:
            run: `fused/fold0/seed0`. settings: what it was trained with, one level. history: its epochs, in order.
        """
        place = self.folder / run
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self.write(place, run, settings, list(count_steps(history)))

    @abstractmethod
    def write(self, place: Path, run: str, settings: Mapping[str, object], steps: Sequence[tuple[int, dict[str, float]]]) -> None:
        """Write a run into an empty folder: its figures after each epoch, from 1, over all phases."""


TRACKERS: Parts[Tracker] = Parts("pipeline.training.trackers", Tracker, "tracker in run.track")


def open_trackers(names: Sequence[str], folder: Path | None = None) -> list[Tracker]:
    """Those of `run.track`; before anything is trained.

    Raises:
        ParamsError: an unknown one. UserError: the package of one is not installed.
    """
    found = []
    for name in names:
        part = TRACKERS.find(name)
        if importlib.util.find_spec(part.package) is None:
            raise UserError(
                f"run.track: {name} needs {part.package}, which is not installed; "
                f"pip install {part.package}, or leave {name} out of run.track."
            )
        found.append(part((folder or Path(FOLDER)) / name))
    return found


def count_steps(history: Sequence[Row]) -> Iterator[tuple[int, dict[str, float]]]:
    """Number of an epoch, over all phases, and its figures; what is no number, or none of a figure, is left out.

    >>> list(count_steps([{"phase": "a", "epoch": 1, "val_loss": 0.5}, {"phase": "b", "epoch": 1, "val_loss": None}]))
    [(1, {'val_loss': 0.5}), (2, {})]
    """
    for step, row in enumerate(history, 1):
        yield step, {name: float(value) for name, value in row.items() if name != "epoch" and isinstance(value, int | float)}

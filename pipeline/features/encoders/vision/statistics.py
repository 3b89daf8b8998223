"""Mean and deviation of pixels for checkpoints of one file, which do not say how their images are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipeline.errors import WeightsError
from pipeline.params import Stream

#: Of three channels: mean and deviation.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Named = Literal["unit", "imagenet"]
STATISTICS: dict[Named, Statistics] = {
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def choose_statistics(stream: Stream, path: Path | None, named: Named | None) -> Statistics | None:
    """Mean and deviation that `options.statistics` names; None when it names none and need not.

    Raises:
        WeightsError: a single weight file says nothing of its images, and neither does the stream.
    """
    if named is None and path is not None and path.is_file():
        raise WeightsError(
            f"{stream.weights} does not say how images are prepared; set options.statistics to unit "
            "(no mean and deviation, as face-trained MAE) or imagenet."
        )
    return STATISTICS[named] if named else None

"""TensorBoard: `tensorboard --logdir tracking/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .base import Tracker


class Tensorboard(Tracker):
    """An event file per run; settings are a text beside its curves."""

    package = "tensorboard"

    def write(self, place: Path, run: str, settings: Mapping[str, object], steps: Sequence[tuple[int, dict[str, float]]]) -> None:
        """See `Tracker.write`."""
        from torch.utils.tensorboard.writer import SummaryWriter

        with SummaryWriter(str(place)) as writer:
            writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))
            for step, figures in steps:
                for name, value in figures.items():
                    writer.add_scalar(name, value, step)

"""Weights & Biases: written beside, and sent by `wandb sync tracking/wandb/…` or with `WANDB_MODE=online`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .base import Tracker


class Wandb(Tracker):
    """A run of W&B per run."""

    package = "wandb"

    def write(self, place: Path, run: str, settings: Mapping[str, object], steps: Sequence[tuple[int, dict[str, float]]]) -> None:
        """See `Tracker.write`."""
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        made = wandb.init(project="affectory", name=run, dir=str(place), config=dict(settings), mode=mode)
        for step, figures in steps:
            made.log(figures, step=step)
        made.finish()

"""DVCLive: curves as tables that `dvc plots` reads. No experiment of DVC's is made; `dvc exp run` does that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .base import Tracker


class Dvclive(Tracker):
    """A folder per run."""

    package = "dvclive"

    def write(self, place: Path, run: str, settings: Mapping[str, object], steps: Sequence[tuple[int, dict[str, float]]]) -> None:
        """See `Tracker.write`."""
        from dvclive import Live

        with Live(dir=str(place), save_dvc_exp=False, report=None, dvcyaml=None, monitor_system=False) as live:
            live.log_params({name: str(value) for name, value in settings.items()})
            for step, figures in steps:
                live.step = step
                for name, value in figures.items():
                    live.log_metric(name, value)
                live.make_summary()

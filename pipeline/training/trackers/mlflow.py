"""MLflow: `mlflow ui --backend-store-uri sqlite:///tracking/mlflow/mlflow.db`, or the server of `MLFLOW_TRACKING_URI`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .base import Tracker

EXPERIMENT = "affectory"
#: Longest value of a parameter that is taken.
LONGEST = 500


class Mlflow(Tracker):
    """A run of MLflow per run."""

    package = "mlflow"

    def write(self, place: Path, run: str, settings: Mapping[str, object], steps: Sequence[tuple[int, dict[str, float]]]) -> None:
        """See `Tracker.write`."""
        from mlflow import MlflowClient

        client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder.resolve() / 'mlflow.db'}")
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
        made = client.create_run(experiment, run_name=run).info.run_id
        for name, value in settings.items():
            client.log_param(made, name, str(value)[:LONGEST])
        for step, figures in steps:
            for name, value in figures.items():
                client.log_metric(made, name, value, step=step)
        client.set_terminated(made)

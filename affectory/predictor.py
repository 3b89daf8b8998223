"""A trained run of a project, asked about files."""

from __future__ import annotations

from pathlib import Path

from pipeline import params as parameters
from pipeline.errors import UserError
from pipeline.runs.folders import FUSED
from pipeline.serving.prediction import Prediction
from pipeline.serving.predictor import Predictor as _Predictor


class Predictor:
    """What `python -m pipeline predict` asks; networks are loaded once, whichever the number of files.

    Args:
        project: the folder of `params.yaml` and `models/runs`.
        variant: `fused`, `ensemble`, `linear`, or a stream's name. fold: of several, which. device: None = `run.device`.

    Raises:
        ParamsError, StoreError: no such folder, nothing trained in it, or no such variant or fold.

    Example:
        predictor = affectory.Predictor(".")
        said = predictor("clip.mp4", text="I did not expect that")
        said.emotions, said.dimensions
    """

    def __init__(self, project: str | Path = ".", *, variant: str = FUSED, fold: int = 0, device: str | None = None) -> None:
        folder = Path(project)
        if not (folder / "params.yaml").is_file():
            raise UserError(f"{folder / 'params.yaml'} is not there; give the folder of a project: Predictor('my-project').")
        params = parameters.read(folder / "params.yaml")
        self._inner = _Predictor.load(params, folder / "models/runs", device, variant=variant, fold=fold)

    @property
    def random(self) -> tuple[str, ...]:
        """Streams whose encoder has random weights: what such a model says of people means nothing."""
        return self._inner.random

    def __call__(
        self, path: str | Path, text: str | None = None, *, start: float | None = None, end: float | None = None
    ) -> Prediction:
        """One media file, or `start` to `end` seconds of it.

        Raises:
            UserError: nothing of it can be read, or no stream of the model; `DecodeError` is one.
        """
        return self._inner.predict(path, text, start, end)

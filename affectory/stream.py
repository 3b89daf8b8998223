"""One frozen encoder by itself: files and words in, feature rows out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline import params as parameters
from pipeline.devices import pick_devices
from pipeline.errors import UserError, one_of
from pipeline.features.encoders.extractor import Turn
from pipeline.features.encoders.registry import read_streams
from pipeline.project import find_project
from pipeline.serving.dialogue import read_turn
from pipeline.serving.encoding import Encoding
from pipeline.serving.prediction import StreamUse
from pipeline.serving.spoken import Spoken


class Stream:
    """A ready-made encoder, as `extract` runs it.

    Args:
        name: of a file of `conf/stream/`; `python -m pipeline streams` lists them.
        project: the folder of `conf/` and `params.yaml`, which says how media are decoded; None = this folder if it is a
            project, else the one that came with the installation.
        device: `cpu`, `cuda`, `cuda:1`; None = `run.device`.

    Raises:
        ParamsError: there is no such encoder. WeightsError, when it is first used: its weights are not there.

    Example:
        words = affectory.Stream("minilm")
        values, times = words.text("I did not expect that")
        sound = affectory.Stream("whisper_tiny_en")
        values, times = sound("clip.wav")
    """

    def __init__(self, name: str, *, project: str | Path | None = None, device: str | None = None) -> None:
        folder = find_project() if project is None else Path(project)
        params = parameters.read(folder / "params.yaml")
        known = read_streams(folder / "conf/stream")
        if name not in known:
            raise one_of("stream", name, sorted(known))
        self.name = name
        self._inner = Encoding([], {name: known[name][0]}, params, pick_devices(device or params.run.device)[0])

    @property
    def about(self) -> dict[str, object]:
        """What its rows depend on: weights with their hash, preprocessing, pooling."""
        return self._inner.extractor(self.name).identity

    def __call__(
        self, path: str | Path, text: str | None = None, *, start: float | None = None, end: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (T, ...) float32 and their times (T, 2), seconds from `start`, of a media file.

        Raises:
            UserError: the file has no such modality, or cannot be read.
        """
        source = self._inner.source(path, Spoken(text), start, end)
        _ = source.duration  # a file that is absent or no medium stops here, with one line
        return self._answer(self._inner.encode(source.clip, Path(path).name, self.name), str(path))

    def text(self, words: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of words alone, of an encoder of text."""
        turns = [Turn(None, words)]
        return self._answer(self._inner.encode(lambda stream: read_turn(turns, stream), "text", self.name), repr(words[:40]))

    def _answer(self, found: tuple[np.ndarray, np.ndarray] | StreamUse, what: str) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(found, StreamUse):
            raise UserError(f"{what} has nothing that {self.name} can read ({found.reason}).")
        return found

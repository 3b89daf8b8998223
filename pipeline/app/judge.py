"""What the page asks: one whole film, or the next piece of a recording."""

from __future__ import annotations

import threading
from pathlib import Path

from pipeline.errors import UserError
from pipeline.serving import segments
from pipeline.serving.predictor import Predictor
from pipeline.serving.session import Session, Step
from pipeline.serving.show import plain, plain_use


class Judge:
    """A model that answers one question at a time.

    Args:
        longest: seconds a film may last.
    """

    def __init__(self, predictor: Predictor, longest: float) -> None:
        self._predictor, self._longest = predictor, longest
        self._session = Session(predictor)
        self._turn = threading.Lock()

    def judge_film(self, path: Path, text: str | None) -> dict:
        """What `predict` says of a file, as JSON values.

        Raises:
            UserError: it cannot be read, lasts too long, or holds nothing that the model reads.
        """
        with self._turn:
            duration = self._predictor.source(path).duration
            if duration > self._longest:
                raise UserError(f"it lasts {duration:.0f} s; the page takes {self._longest:g} s (app --seconds).")
            return plain(self._predictor.predict(path, text=text or None))

    def judge_piece(self, path: Path) -> dict:
        """What `stream` says of the next piece of a recording, which goes on from the last.

        Raises:
            UserError: it cannot be read, or holds nothing that the model reads.
        """
        with self._turn:
            piece = next(segments.read_film(path, self._predictor.params, self._longest))
            begin = self._session.results[-1].end if self._session.results else 0.0
            return plain_step(self._session.push(piece._replace(start=begin, end=begin + piece.end)))

    def forget(self) -> None:
        """Another recording begins."""
        with self._turn:
            self._session.reset()


def plain_step(step: Step) -> dict:
    """A step of a recording as JSON values."""
    return {
        "start": round(step.start, 3),
        "end": round(step.end, 3),
        "emotions": {name: round(chance, 6) for name, chance in step.emotions.items()},
        **{name: round(value, 6) for name, value in step.dimensions.items()},
        "streams": plain_use(step.streams),
        "heard": step.text,
        "latency": round(step.latency, 4),
    }

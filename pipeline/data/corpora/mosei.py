"""CMU-MOSEI: sentiment and emotions of opinion videos, larger than MOSI (Zadeh et al. 2018)."""

from __future__ import annotations

from typing import Literal

from . import cells, sentiment
from .cmu import EMOTIONS
from .mosi import Mosi

#: Other names of the emotions in tables.
_ALSO = {"happy": "happiness", "sad": "sadness", "anger": "angry"}
#: Of an intensity.
MOST = 3.0


class Mosei(Mosi):
    """Adapter of CMU-MOSEI."""

    title = "CMU-MOSEI, sentiment and emotions of opinion videos"
    homepage = "http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset/"
    classes = (*sentiment.POLARITIES, *EMOTIONS)

    class Options(Mosi.Options):
        #: What `emotion` holds: nothing, the polarity (3), the 7 degrees, or the strongest of six emotions.
        view: Literal["none", "three", "seven", "emotions"] = "none"  # type: ignore[assignment]
        #: Of several equally strong emotions: none of them, or the first of happy, sad, anger, surprise, disgust, fear.
        ties: Literal["none", "first"] = "none"
        #: A clip in which nobody found any of the six: without emotion, or neutral.
        unfelt: Literal["none", "neutral"] = "none"

    options: Options

    def read_emotions(self, row: dict[str, str]) -> dict[str, float]:
        """See `SentimentCorpus.read_emotions`."""
        found = {name: cells.number(row.get(name) or row.get(_ALSO.get(name, ""), ""), 0, MOST) for name in EMOTIONS}
        return {name: value for name, value in found.items() if value is not None}

    def view(self, sentiment: str | None, value: float | None, emotions: dict[str, float]) -> str | None:
        """The strongest emotion; several may be felt in one clip, and `labels` keeps all intensities."""
        if self.options.view != "emotions":
            return super().view(sentiment, value, emotions)
        if not emotions:
            return None
        most = max(emotions.values())
        strongest = [name for name in EMOTIONS if emotions.get(name) == most]
        if most <= 0:
            return "neutral" if self.options.unfelt == "neutral" else None
        return strongest[0] if len(strongest) == 1 or self.options.ties == "first" else None

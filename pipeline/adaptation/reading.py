"""Clips read for learning: each epoch another window of a clip, and another of its views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.features.encoders.extractor import Clip, Missing, Prepared
from pipeline.features.engine.reader import Job, Reader
from pipeline.storage.feature_store import Status
from pipeline.workers.pool import Pool

#: Prepared clips held in memory ahead of the device, in batches.
AHEAD = 2


@dataclass(frozen=True)
class Draw:
    """How a clip is seen once.

    Attributes:
        place: where in the clip the window lies, from 0 (its begin) to 1 (its end).
        view: one of the stream's, which changes all of the clip alike; None = as it is.
    """

    job: Job
    place: float = 0.5
    view: str | None = None


@dataclass
class DrawReader:
    """Draw → `Prepared`, or the reason why not. Picklable, as `Reader` is.

    Attributes:
        prepare: of the clip as it is (None) and of each view. frames, seconds: of the window; None = all.
    """

    reader: Reader
    prepare: Mapping[str | None, Callable[[Clip], Prepared]]
    frames: int | None
    seconds: float | None

    def __call__(self, draw: Draw) -> Prepared | tuple[Status, str]:
        """See `Reader.__call__`; times are seconds of the whole clip."""
        clip = self.reader.read_clip(draw.job)
        if isinstance(clip, tuple):
            return clip
        clip, begin = cut(clip, draw.place, self.frames, self.seconds)
        try:
            prepared = self.prepare[draw.view](clip)
        except Missing as missing:
            return Status.MISSING, str(missing)
        return replace(prepared, times=np.asarray(prepared.times, np.float32) + np.float32(begin))


def cut(clip: Clip, place: float, frames: int | None, seconds: float | None) -> tuple[Clip, float]:
    """The window of a clip, and where its times begin: frames keep theirs, sound has none.

    >>> cut(Clip("a", waveform=np.zeros(10, np.float32), rate=2), 1.0, None, 2.0)[1]
    3.0
    """
    if clip.frames is not None and clip.frame_times is not None and frames and len(clip.frames) > frames:
        low = round(place * (len(clip.frames) - frames))
        kept = slice(low, low + frames)
        return replace(clip, frames=clip.frames[kept], frame_times=clip.frame_times[kept]), 0.0
    if clip.waveform is not None and seconds and len(clip.waveform) > (size := round(seconds * clip.rate)):
        low = round(place * (len(clip.waveform) - size))
        return replace(clip, waveform=clip.waveform[low : low + size], duration=size / clip.rate), low / clip.rate
    return clip, 0.0


@dataclass(frozen=True)
class Seen:
    """Clips as they are read in batches.

    Attributes:
        pool: of a `DrawReader`. views: names of the views that are drawn from, beside the clip as it is.
    """

    pool: Pool
    jobs: Sequence[Job]
    batch: int
    views: tuple[str, ...] = ()

    def read(self, places: Sequence[int], order: torch.Generator | None = None) -> Iterator[list[tuple[int, Prepared]]]:
        """Batches of (place, prepared clip), in the order given; clips that cannot be read are left out.

        Args:
            order: draws windows and views; None looks at the middle of the clip as it is.
        """
        batch: list[tuple[int, Prepared]] = []
        draws = [(place, self._draw(self.jobs[place], order)) for place in places]
        for outcome in self.pool.imap(draws, window=AHEAD * self.batch):
            if isinstance(outcome.value, Prepared):
                batch.append((outcome.key, outcome.value))
            if len(batch) == self.batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _draw(self, job: Job, order: torch.Generator | None) -> Draw:
        if order is None:
            return Draw(job)
        view = int(torch.randint(len(self.views) + 1, (), generator=order))
        return Draw(job, float(torch.rand((), generator=order, dtype=torch.float64)), (None, *self.views)[view])

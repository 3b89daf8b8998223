"""When a clip's frames are shown, and which moments are sampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .container import Medium, seconds
from .failures import FAILURES


def segments(length: float, fps: float, most: int) -> np.ndarray:
    """Divide `length` seconds into pieces of 1 / fps, or into `most` equal ones where that would be more.

    Returns:
        (T, 2) float64 start and end in seconds, T >= 1; the last piece takes the remainder.
    """
    count = max(1, int(length * fps + 0.5))
    edges = np.linspace(0.0, length, most + 1) if count > most else np.append(np.arange(count) / fps, length)
    return np.stack([edges[:-1], edges[1:]], axis=1)


@dataclass(frozen=True)
class Packets:
    """The time table of a video stream, read without decoding.

    Attributes:
        times: (N,) seconds of presentation (AVI: of decoding), ascending, of all packets, from the container's origin.
        shown: (N,) whether the packet is meant to be seen (edit lists hide some).
        end: when the last shown frame ends; 0 when no packet has a time.
        timed: whether every packet has a time of presentation.
    """

    times: np.ndarray
    shown: np.ndarray
    end: float
    timed: bool


def packets(medium: Medium) -> Packets:
    """Read the time table of the film from where the container stands to its end."""
    stream, zero = medium.video, medium.origin
    assert stream is not None
    times, shown, ends, timed = [], [], [], True
    demuxer = medium.packets()
    while True:
        try:
            packet = next(demuxer)
        except StopIteration:
            break
        except FAILURES:
            timed = False
            break
        if packet.size == 0 or packet.stream.index != stream.index:
            continue
        timed = timed and packet.pts is not None
        at = medium.moment(packet)
        if at is None:
            continue
        times.append(at - zero)
        shown.append(not packet.is_discard)
        ends.append(at - zero + (seconds(packet.duration, packet.time_base) or 0.0) if shown[-1] else 0.0)
    order = np.argsort(times, kind="stable")
    return Packets(
        np.asarray(times, dtype=float)[order], np.asarray(shown, dtype=bool)[order], max(ends, default=0.0), timed and bool(times)
    )

"""decord, for the plain files it can be trusted with (see `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .container import Medium
from .orientation import Orientation
from .probe import display
from .timeline import Packets

#: Spread of frame intervals, as a share of one, up to which a clip counts as constant-rate.
JITTER = 0.05


def suits(medium: Medium, table: Packets) -> bool:
    """Whether decord's known defects cannot touch this file: 8-bit H.264 in MP4 at constant rate,
    square pixels, not rotated, nothing hidden before its end, and the time of every packet known."""
    stream = medium.video
    assert stream is not None
    codec = stream.codec_context
    if not (
        table.timed
        and len(table.times) > 1
        and "mp4" in medium.container.format.name
        and codec.name == "h264"
        and codec.pix_fmt == "yuv420p"
        and codec.color_range != 2
        and (stream.sample_aspect_ratio or 1) == 1
    ):
        return False
    steps = np.diff(table.times)
    if steps.min() <= 0 or np.ptp(steps) > JITTER * steps.mean() or not table.shown[: int(table.shown.sum())].all():
        return False
    medium.rewind()
    stream = medium.video
    assert stream is not None
    frame = next(medium.decoded(stream), None)
    return frame is not None and display(frame, stream, medium.path) == (codec.width, codec.height, Orientation())


class Refused(Exception):
    """decord will not have the file, or tells other times than its packets."""


def read(path: Path, table: Packets, moments: np.ndarray) -> Iterator[tuple[int, Image.Image]]:
    """(position, picture) for every one of `moments` that shows one; in memory one at a time.

    Raises:
        Refused: at any moment; what was given before is right.
    """
    try:
        import decord
    except (ImportError, OSError) as error:  # no wheel for this machine, or one that does not load
        raise Refused from error
    failures = (decord.DECORDError, RuntimeError, OSError)
    times = table.times[table.shown]
    chosen = np.searchsorted(times, moments + 1e-3, side="right") - 1
    if not (chosen >= 0).any():
        chosen[-1] = 0  # a clip shorter than its picture's delay
    try:
        decord.logging.set_level(decord.logging.QUIET)
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        told = video.get_frame_timestamp(range(len(video)))[:, 0] if len(video) else np.zeros(0)
        if len(told) != len(table.times) or np.ptp(told - table.times) > JITTER * np.diff(table.times).mean():
            raise Refused
        shown: tuple[int, Image.Image] | None = None
        for position, number in enumerate(chosen.tolist()):
            if number < 0:
                continue
            if shown is None or shown[0] != number:
                pixels = video[number].asnumpy()
                if pixels.shape[2] != 3:
                    # It takes the channels from the padded length of a line, which is wrong below 49 pixels of width.
                    raise Refused
                shown = number, Image.fromarray(pixels)
            yield position, shown[1]
    except failures as error:
        raise Refused from error

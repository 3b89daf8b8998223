"""A film, a line of JSON, or raw samples as segments of a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.data import media
from pipeline.data.fact import examine_file
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.storage import flac, media_store
from pipeline.storage.feature_store import Status

from .session import Segment

#: Seconds of each piece of sound whose loudness is looked at, and how long a pause ends what is said.
FRAME, PAUSE = 0.03, 0.4
#: How far below the loudest a piece of sound counts as a pause, as a factor.
QUIET = 0.05
#: Keys of a line of JSON.
KEYS = ("text", "speaker", "file", "start", "end")


def cut_by_hop(length: float, hop: float) -> list[tuple[float, float]]:
    """Pieces of `hop` seconds; what is left over joins the last when it is less than half of one.

    >>> cut_by_hop(5.0, 2.0), cut_by_hop(4.5, 2.0), cut_by_hop(0.5, 2.0)
    ([(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)], [(0.0, 2.0), (2.0, 4.5)], [(0.0, 0.5)])
    """
    count = max(1, int(length / hop + 0.5))
    edges = [*(i * hop for i in range(count)), length]
    return list(zip(edges, edges[1:], strict=False))


def cut_by_voice(waveform: np.ndarray, rate: int, longest: float = 8.0) -> list[tuple[float, float]]:
    """Pieces in which there is sound, cut where it pauses for `PAUSE` seconds, or after `longest`.

    Args:
        waveform: (S,) float32.

    Returns:
        Seconds of each; empty when there is nothing but silence.
    """
    size = max(1, round(FRAME * rate))
    count = len(waveform) // size
    if not count:
        return []
    loud = np.sqrt(np.square(waveform[: count * size].reshape(count, size), dtype=np.float64).mean(1))
    heard = loud > max(QUIET * np.quantile(loud, 0.95), 1e-4)
    pieces: list[tuple[float, float]] = []
    begin, last = None, 0
    for i, is_heard in enumerate([*heard.tolist(), False]):
        if is_heard and begin is None:
            begin = i
        last = i if is_heard else last
        if begin is None:
            continue
        ends = i == count or (i - last) * FRAME >= PAUSE
        if ends or (i - begin) * FRAME >= longest:
            pieces.append((begin * size / rate, min(last + 1, count) * size / rate))
            begin = None
    return pieces


def read_film(path: Path, params: Params, hop: float | None) -> Iterator[Segment]:
    """A file, decoded once, in pieces of `hop` seconds; None cuts where its sound pauses.

    Raises:
        DecodeError: it is absent or no medium. UserError: it is to be cut by its sound, and has none.
    """
    facts = examine_file(str(path))
    wave = _read_sound(path, params) if facts.audio else None
    frames, times = _read_frames(path, params) if facts.video else ([], np.zeros((0, 2), np.float32))
    rate = params.decode.audio.rate
    if hop is not None:
        pieces = cut_by_hop(facts.duration, hop)
    elif wave is None:
        raise UserError(f"{path} has no sound to cut it by; give --hop SECONDS.")
    else:
        pieces = cut_by_voice(wave, rate)
        if not pieces:
            raise UserError(f"{path} is silent, so that no pause divides it; give --hop SECONDS.")
    for start, end in pieces:
        # Sound and pictures may go on a little beyond what the container says.
        until = np.inf if hop is not None and end == facts.duration else end
        seen = (times.mean(1) >= start) & (times.mean(1) < until) if len(times) else np.zeros(0, bool)
        yield Segment(
            start,
            end,
            waveform=None if wave is None else wave[round(start * rate) : None if until == np.inf else round(end * rate)],
            frames=[frames[i] for i in np.flatnonzero(seen)] or None,
            times=times[seen] - np.float32(start) if seen.any() else None,
        )


def _read_sound(path: Path, params: Params) -> np.ndarray | None:
    entry = media.decode_sound(params.decode.audio.rate, media.Cut(str(path), None, None))
    if entry.status == Status.MISSING:
        return None
    # As training reads it.
    return flac.decode(entry.values.tobytes())[0]


def _read_frames(path: Path, params: Params) -> tuple[list[bytes], np.ndarray]:
    entry = media.decode_frames(params.decode.video, media.Cut(str(path), None, None))
    return ([], np.zeros((0, 2), np.float32)) if entry.status == Status.MISSING else (media_store.split_files(entry), entry.times)


def read_lines(lines: Iterable[str], params: Params) -> Iterator[Segment]:
    """A segment per line of JSON: `text`, `speaker`, and `file` with `start` and `end` in it.

    Raises:
        UserError: a line that is no such object.
    """
    clock = 0.0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as error:
            raise UserError(f'line {number} is no JSON ({error}); write one object a line, e.g. {{"text": "Hello."}}.') from error
        if not isinstance(said, dict) or set(said) - set(KEYS):
            strange = sorted(set(said) - set(KEYS))[0] if isinstance(said, dict) else type(said).__name__
            raise UserError(f"line {number} has {strange!r}; a line is an object with {', '.join(KEYS)}.")
        segment = _read_piece(said, params, number) if said.get("file") else Segment(clock, clock)
        clock = segment.end
        yield segment._replace(text=said.get("text"), speaker=said.get("speaker"))


def _read_piece(said: dict, params: Params, number: int) -> Segment:
    path, start, end = Path(str(said["file"])), said.get("start"), said.get("end")
    if not all(one is None or isinstance(one, int | float) for one in (start, end)):
        raise UserError(f"line {number}: start and end are seconds.")
    facts = examine_file(str(path))
    low, high = float(start or 0.0), float(end if end is not None else facts.duration)
    if not 0 <= low < high:
        raise UserError(f"line {number}: the cut from {low:g} s to {high:g} s is empty; give 0 <= start < end.")
    cut = media.Cut(str(path), start, end)
    wave, frames, times = None, [], np.zeros((0, 2), np.float32)
    if facts.audio:
        sound = media.decode_sound(params.decode.audio.rate, cut)
        wave = None if sound.status == Status.MISSING else flac.decode(sound.values.tobytes())[0]
    if facts.video:
        seen = media.decode_frames(params.decode.video, cut)
        if seen.status != Status.MISSING:
            frames, times = media_store.split_files(seen), seen.times
    return Segment(low, high, waveform=wave, frames=list(frames) or None, times=times if len(times) else None)


def read_samples(source: IO[bytes], rate: int, hop: float) -> Iterator[Segment]:
    """Raw 16-bit mono samples as they come, every `hop` seconds; the last piece is what is left.

    Raises:
        UserError: half a sample is left at the end.
    """
    size, start = max(1, round(hop * rate)), 0
    while raw := source.read(2 * size):
        if len(raw) % 2:
            raise UserError("the samples end in the middle of one; they must be 16-bit, mono.")
        samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
        yield Segment(start / rate, (start + len(samples)) / rate, waveform=samples)
        start += len(samples)


def summarise(latencies: Sequence[float], seconds: float) -> str:
    """One line: how many segments, how long an answer took, and how that is to the time they lasted.

    >>> summarise([0.1, 0.2, 0.3], 6.0)
    '3 segments, p50 200 ms, p95 290 ms, 0.10 of real time'
    """
    if not latencies:
        return "no segments"
    middle, most = np.percentile(latencies, [50, 95])
    share = f", {sum(latencies) / seconds:.2f} of real time" if seconds else ""
    return f"{len(latencies)} segments, p50 {middle * 1e3:.0f} ms, p95 {most * 1e3:.0f} ms{share}"

"""The engine against the bare forward pass of the same prepared clips: what reading, JPEG decoding and writing cost.

Both run in this process with one loaded network, the same batches and the same threads, by turns; the
engine's reader processes have ended when the bare pass begins. What the engine adds is all that differs.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import corpus
from .figures import Figure, seconds

#: A ratio this far above 1, where the engine would do more in less time, is no measurement.
JITTER = 0.03
NOISE = "; more than 1 is other work on the machine coming and going, no measurement: run again when it is idle"


@dataclass(frozen=True)
class Size:
    clips: int = 16
    frames: int = 8
    repeats: int = 5
    workers: int = 2
    #: Share of the default batch budget of 64 frames.
    batch: float = 0.25
    tiny: bool = False


TINY = Size(clips=3, frames=2, repeats=1, workers=0, tiny=True)


def measure(folder: Path, size: Size) -> list[Figure]:
    import torch

    manifest, frames = corpus.frames(folder, size.clips, size.frames)
    if size.tiny:
        return _model(folder, manifest, frames, size, "tiny ViT", corpus.TINY_VIT, "float32", "cpu", "")
    if not torch.cuda.is_available():
        return [
            *_model(folder, manifest, frames, size, "ViT-B/32", corpus.VIT_B32, "float32", "cpu", ">= 0.85"),
            Figure("ViT-L/14 on a GPU: engine ÷ bare forward", None, "ratio", ">= 0.9", "no GPU here"),
        ]
    (folder / "gpu").mkdir()
    size = replace(size, clips=size.clips * 60, batch=1.0, workers=max(2, len(os.sched_getaffinity(0)) - 1))
    manifest, frames = corpus.frames(folder / "gpu", size.clips, size.frames)
    return [
        *_model(folder, manifest, frames, size, "ViT-B/32", corpus.VIT_B32, "float16", "cuda:0", ">= 0.6"),
        *_model(folder, manifest, frames, size, "ViT-L/14", corpus.VIT_L14, "float16", "cuda:0", ">= 0.9"),
    ]


def _model(
    folder: Path, manifest: Path, frames: Path, size: Size, title: str, architecture: dict, dtype: str, device: str, target: str
) -> list[Figure]:
    """Both ways in turn, with the network loaded once: bare, engine, bare, engine, bare …"""
    import torch

    from pipeline.features.encoders import registry
    from pipeline.features.encoders.encoder import Encoder
    from pipeline.features.engine import run as engine
    from pipeline.features.engine.batcher import batches
    from pipeline.features.engine.forward import Forward
    from pipeline.features.engine.reader import Reader, list_jobs
    from pipeline.params import Run
    from pipeline.storage import tables
    from pipeline.storage.clip_cache import ClipCache

    stream = corpus.stream(corpus.image_stream(architecture, frames, dtype=dtype))
    extractor = registry.build(stream)
    forward = Forward(extractor, device=device)
    ran: list[int] = []

    class Counted(Encoder):
        network = forward.encoder.network

        def encode(self, batch: list) -> list:
            ran.append(len(batch))
            return forward.encoder.encode(batch)

    loaded = replace(extractor, load=lambda device: Counted())
    work = list_jobs(tables.read(manifest), stream)
    reader = Reader(extractor.prepare, "video", frames)
    begun = time.process_time()
    prepared = [(job, reader(job)) for job in work]
    reading = time.process_time() - begun
    grouped = [[item for _, item in batch] for batch in batches(prepared, extractor.budget * size.batch)]

    def through_engine(name: object, some: list) -> None:
        with ClipCache("extract", {"round": [title, name]}, base=folder / "cache") as cache:
            stats = engine.run(loaded, reader, some, cache, Run(workers=size.workers, batch=size.batch), device=device)
            if stats.failures or len(cache) != len(some):
                raise RuntimeError(f"{len(stats.failures)} of {len(some)} clips failed")

    def bare() -> None:
        if multiprocessing.active_children():
            raise RuntimeError("reader processes of the engine are still there")
        for batch in grouped:
            forward(batch)

    # The first pool of a process imports libraries into a fork server; later ones are there in milliseconds.
    start = seconds(lambda: through_engine("start", work[:1]))
    forward(grouped[0])
    bares, walls, ratios, shares = [_spent(bare)], [], [], []
    for number in range(size.repeats):
        ran.clear()
        wall, processor = _spent(lambda number=number: through_engine(number, work))
        if ran != [len(batch) for batch in grouped]:
            raise RuntimeError(f"the engine ran batches of {ran} clips, the bare pass others")
        bares.append(_spent(bare))
        # The bare passes before and after: other work on the machine comes and goes.
        around, busy = ((one + other) / 2 for one, other in zip(*bares[-2:], strict=True))
        walls.append(wall)
        ratios.append(around / wall)
        shares.append(busy / (processor + reading))
    place = "the processor" if device == "cpu" else "a GPU"
    # Well above 1 cannot be; it means that other work came and went, and then no target is met or missed.
    ratio = statistics.median(ratios)
    noisy = ratio > 1 + JITTER
    speed = len(work) / statistics.median(wall for wall, _ in bares)
    return [
        Figure(
            f"{title} on {place}: engine ÷ bare forward",
            ratio,
            "ratio",
            "" if noisy else target,
            f"clips/s; {len(work)} clips of {size.frames} frames, reading, JPEG decoding and writing counted; median of "
            f"{size.repeats} rounds from {min(ratios):.3g} to {max(ratios):.3g}, {torch.get_num_threads()} threads"
            + (NOISE if noisy else ""),
        ),
        Figure(
            f"{title} on {place}: engine ÷ bare forward, in processor time",
            statistics.median(shares),
            "ratio",
            "",
            "hardly changed by other work on the machine",
        ),
        Figure(
            f"{title} on {place}: bare forward",
            speed,
            "clips/s",
            "",
            f"{size.frames} frames per clip, batches of {64 * size.batch:.0f} frames, {dtype}",
        ),
        Figure(
            f"{title} on {place}: engine", len(work) / statistics.median(walls), "clips/s", "", f"{size.workers} reader processes"
        ),
        Figure(
            f"{title} on {place}: start of the reader processes",
            start,
            "s",
            "",
            "once per stage, not in the ratio; with one clip",
        ),
    ]


def _spent(function: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds, and processor seconds of this process."""
    begun = time.process_time()
    wall = seconds(function)
    return wall, time.process_time() - begun

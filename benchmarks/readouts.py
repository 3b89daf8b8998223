"""A second readout of one network beside the first, and by itself: two layers of ViT-B/32, a process per stage as DVC has it.

Processor time, since other work on the machine comes and goes; importing torch is in it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import apart, corpus
from .figures import Figure

#: The layers that are read of one network, and how each is pooled.
READOUTS: dict[str, dict] = {"last": {}, "ninth": {"layer": 9, "pooling": "mean"}}


@dataclass(frozen=True)
class Size:
    clips: int = 24
    frames: int = 8
    repeats: int = 3
    isolated: bool = True
    architecture: dict = field(default_factory=lambda: corpus.VIT_B32)
    readouts: dict = field(default_factory=lambda: READOUTS)


TINY = Size(3, 2, 1, False, corpus.TINY_VIT, READOUTS | {"ninth": {"layer": 1, "pooling": "mean"}})


def extract(folder: Path, manifest: Path, frames: Path, architecture: dict, readouts: dict, name: str) -> float:
    """Stage `extract` of one stream. Returns the processor seconds it took."""
    begun = time.process_time()
    from pipeline.features.extract import extract as stage

    streams = {key: corpus.image_stream(architecture, frames, options={"readout": "cls"}, **own) for key, own in readouts.items()}
    stage(corpus.parameters(streams, workers=0), name, manifest=manifest, out=folder / f"{name}.h5")
    return time.process_time() - begun


def measure(folder: Path, size: Size) -> list[Figure]:
    manifest, frames = corpus.frames(folder, size.clips, size.frames)
    taken: dict[str, list[float]] = {}

    def stage(what: str, cache: str, name: str, readouts: dict) -> None:
        done = apart.run(
            extract, folder, manifest, frames, size.architecture, readouts, name, cache=folder / cache, isolated=size.isolated
        )
        taken.setdefault(what, []).append(float(str(done.value)))

    first, second = size.readouts
    for number in range(size.repeats):
        for name, own in size.readouts.items():
            stage(f"{name} alone", f"{name}{number}", name, {name: own})
        stage("both", f"both{number}", first, size.readouts)
        stage("found", f"both{number}", second, size.readouts)
    more = [
        (both + found - alone) / alone
        for both, found, alone in zip(taken["both"], taken["found"], taken[f"{first} alone"], strict=True)
    ]
    seconds = {what: statistics.median(values) for what, values in taken.items()}
    return [
        Figure(
            "a second readout ÷ the first",
            max(0.0, statistics.median(more)),
            "ratio",
            "<= 0.1",
            f"processor time of both stages less that of the first alone; {size.repeats} rounds by turns",
        ),
        Figure("the first, alone", seconds[f"{first} alone"], "s", "", f"{size.clips} clips of {size.frames} frames"),
        Figure("the second, alone", seconds[f"{second} alone"], "s"),
        Figure("the first, with the second read beside it", seconds["both"], "s"),
        Figure("the second, found in the cache", seconds["found"], "s"),
    ]

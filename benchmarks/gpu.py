"""What a GPU is used for: encoders, an epoch of training and a step of a language model, against what the card can do.

Each row stands alone: one that fails says why, and the others go on. It runs on whatever card is there; without one, `--device
cpu --small` shows that it runs. Weights are seeded stand-ins of the published sizes, as fast as trained ones.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from . import corpus, epoch, steps
from .bench import Bench
from .figures import Figure, seconds
from .networks import NETWORKS

HALVES = ("float16", "bfloat16")
#: Aims of engine ÷ bare forward on a GPU.
TARGETS = {"CLIP ViT-B/32": ">= 0.6", "CLIP ViT-L/14": ">= 0.95"}


@dataclass(frozen=True)
class Size:
    #: `cpu`, `cuda:0`, ...; None = the first GPU.
    device: str | None = None
    networks: tuple[str, ...] = tuple(network.title for network in NETWORKS)
    clips: int = 256
    frames: int = 8
    sound: float = 4.0
    repeats: int = 5
    workers: int = 8
    #: Of the square matrices whose product says what the card can do.
    matrix: int = 8192
    epoch: epoch.Size = epoch.Size(repeats=3)
    language: steps.Size = steps.Size()
    small: bool = False


TINY = Size(
    device="cpu",
    clips=3,
    frames=2,
    sound=0.5,
    repeats=1,
    workers=0,
    matrix=64,
    epoch=epoch.TINY,
    language=steps.TINY,
    small=True,
)


def measure(folder: Path, size: Size) -> list[Figure]:
    import torch

    device = size.device or ("cuda:0" if torch.cuda.is_available() else None)
    if device is None:
        return [Figure("encoders, an epoch and a step", None, "", "", "no GPU here; --device cpu --small shows that it runs")]
    dtype = "float32" if device == "cpu" else "float16"
    manifest, frames = corpus.frames(folder / "pictures", size.clips, size.frames)
    heard, sounds = corpus.sounds(folder / "sounds", size.clips, size.sound)
    peaks = {
        kind: _attempt(f"product of matrices, {kind}", lambda kind=kind: _peak(kind, device, size)) for kind in _kinds(dtype)
    }
    figures = [figure for found in peaks.values() for figure in found]
    peak = peaks[dtype][0].value
    for network in NETWORKS:
        if network.title not in size.networks:
            continue
        media = (manifest, frames) if network.modality == "video" else (heard, sounds)
        bench = Bench(network, folder / network.title.replace("/", "-"), *media, device, dtype, size)
        rows: dict[str, Callable[[], Iterable[Figure]]] = {
            "bare forward": bench.forward_alone,
            "engine ÷ bare forward": lambda bench=bench: bench.engine(TARGETS.get(bench.network.title, "")),
            "one clip after the other ÷ engine": bench.peers,
            "share of what the card can do": lambda bench=bench: bench.ceiling(peak),
            **{f"{half} against float32": lambda bench=bench, half=half: bench.parity(half) for half in HALVES},
        }
        if network.images:
            rows |= {"channels-last ÷ contiguous": bench.layout, "compiled ÷ as it is": bench.compiled}
        if network.nvjpeg:
            rows["engine with nvJPEG ÷ with Pillow"] = bench.nvjpeg
        for name, row in rows.items():
            figures += _attempt(f"{network.title}: {name}", row)
        bench.close()
        _free()
    for case in epoch.CASES:
        figures += _attempt(f"epoch, {case}", lambda case=case: _epoch(case, size, device))
    for share in steps.SHARES:
        name = steps.name(share)
        figures += _attempt(name, lambda share=share: steps.measure(share, size.language, device, dtype, peak))
    return figures


def _epoch(case: str, size: Size, device: str) -> list[Figure]:
    """As the benchmark `epoch`; what it aims at holds on one thread of a processor."""
    return [replace(figure, target="") for figure in epoch.measure_case(case, size.epoch, device)]


def _attempt(name: str, row: Callable[[], Iterable[Figure]]) -> list[Figure]:
    try:
        return list(row())
    except Exception as error:  # whatever it is: the other rows are worth their time
        said = " ".join(str(error).split())[:160]
        return [Figure(name, None, "", "", f"not taken: {type(error).__name__}: {said}")]
    finally:
        _free()


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _kinds(dtype: str) -> tuple[str, ...]:
    return ("float32",) if dtype == "float32" else ("float32", *HALVES)


def _peak(kind: str, device: str, size: Size) -> list[Figure]:
    """What the card computes when nothing else is asked of it; the published figure is out of reach."""
    import torch

    matrix = torch.ones(size.matrix, size.matrix, dtype=getattr(torch, kind), device=device)

    def multiply() -> None:
        result = matrix
        for _ in range(4):
            result = matrix @ matrix
        result[0, 0].item()

    multiply()
    taken = statistics.median(seconds(multiply) for _ in range(size.repeats))
    rate = 4 * 2 * size.matrix**3 / taken / 1e12
    return [Figure(f"product of matrices, {kind}", rate, "TFLOP/s", "", f"{size.matrix} × {size.matrix}, on {describe(device)}")]


def describe(device: str) -> str:
    """Name of a card; `the processor`."""
    import torch

    return "the processor" if device == "cpu" else torch.cuda.get_device_name(device)

"""The features of a fold gathered from the mapped stores, and loaded clip by clip, joined and copied: time and memory.

Both end with every row read once, in batches, in a process of its own. And `train` where every run is in the cache.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pipeline import params as parameters
from pipeline.features import index
from pipeline.params import Params
from pipeline.storage import feature_store, tables
from pipeline.storage.feature_store import Entry, Status
from pipeline.storage.index import Index
from pipeline.training.data.dataset import Dataset
from pipeline.training.stage import train

from . import apart
from .epoch import CLASSES, TURNS
from .figures import Figure

#: Width of each stream, and most tokens of a clip.
STREAMS = {"audio": (768, 60), "text": (768, 20), "video": (1024, 30)}
BATCH = 64


@dataclass(frozen=True)
class Size:
    #: Clips of MELD, about: those of training.
    clips: int = 9989
    streams: tuple[str, ...] = ("audio", "text", "video")
    repeats: int = 3
    isolated: bool = True


TINY = Size(clips=60, streams=("text",), repeats=1, isolated=False)


def make_params(folder: Path, streams: tuple[str, ...]) -> Params:
    """Parameters whose one run is pooled and short: what is measured is what stands around it."""
    named = {name: {"modality": name, "source": "x", "encoder": "x", "weights": "random:0"} for name in streams}
    return parameters.parse(
        {
            "recipe": "demo",
            "corpus": {"name": "demo", "root": str(folder)},
            "fusion": {"name": "concat"},
            "streams": named,
            "temporal": {"width": 16, "pooling": "mean"},
            "loss": {"emotion": {"name": "cross_entropy"}},
            "task": {"dimensions": []},
            "training": {"epochs": 1, "seeds": 5, "unimodal": True, "linear": None},
            "run": {"workers": 0, "device": "cpu"},
        }
    )


def make_corpus(folder: Path, size: Size) -> Params:
    """Manifest, folds, stores and index of clips of random numbers in dialogues."""
    chance = np.random.default_rng(0)
    ids = [f"clip{i:05d}" for i in range(size.clips)]
    rows = [
        {
            "id": clip,
            "corpus": "demo",
            "dialogue": f"d{i // TURNS}",
            "turn": i % TURNS,
            "speaker": f"s{i % 6}",
            "emotion": CLASSES[int(chance.integers(len(CLASSES)))],
        }
        for i, clip in enumerate(ids)
    ]
    tables.write(tables.frame(rows), folder / "manifest.parquet")
    role = ["test" if i % 5 == 0 else "val" if i % 5 == 1 else "train" for i in range(size.clips)]
    tables.write(pl.DataFrame({"id": ids, "fold": 0, "role": role}), folder / "folds.parquet", sort=("fold", "id"))
    for name in size.streams:
        width, most = STREAMS[name]
        counts = chance.integers(most // 2, most + 1, size.clips).tolist()
        entries = (
            Entry(
                chance.standard_normal((count, width), np.float32),
                np.stack([np.arange(count), np.arange(1, count + 1)], 1).astype(np.float32) / 4,
                Status.OK,
            )
            for count in counts
        )
        attributes = {"stream": name, "modality": name, "identity": {"weights": {"source": "random:0"}}}
        feature_store.write(folder / f"{name}.h5", ids, entries, rows=counts, shape=(width,), attributes=attributes)
    params = make_params(folder, size.streams)
    paths = {name: folder / f"{name}.parquet" for name in ("manifest", "folds")}
    index.build(params, features=folder, **paths, out=folder / "index.h5")
    return params


def measure(folder: Path, size: Size) -> list[Figure]:
    params = make_corpus(folder, size)
    text = params.model_dump_json()
    stored = sum((folder / f"{name}.h5").stat().st_size for name in size.streams) / 2**20
    taken: dict[str, list[apart.Measured]] = {"mapped": [], "clip by clip": []}
    for _ in range(size.repeats):
        for name, function in (("mapped", read_mapped), ("clip by clip", read_clip_by_clip)):
            taken[name].append(apart.run(function, folder, text, cache=folder / "cache", isolated=size.isolated))
    ours, theirs = ([one.value for one in found] for found in taken.values())
    ratio = statistics.median(b[0] / a[0] for a, b in zip(ours, theirs, strict=True))
    whole = statistics.median(b[1] / a[1] for a, b in zip(ours, theirs, strict=True))
    peaks = {
        name: statistics.median(one.resident - one.value[2] for one in found) / stored if stored else 0.0
        for name, found in taken.items()
    }
    again = [train_apart(folder, text) for _ in range(size.repeats + 1)][1:]
    note = f"{size.clips} clips, {stored:.0f} MiB in {len(size.streams)} stores; median of {size.repeats} by turns"
    return [
        Figure("Dataset.load: clip by clip ÷ mapped", ratio, "x", "", note + "; processor time"),
        Figure("the same, with every row read once in batches", whole, "x", ">= 4", "processor time"),
        Figure("memory taken ÷ the stores' bytes, mapped", peaks["mapped"], "x", "<= 1.1", "pages of the files counted in"),
        Figure("memory taken ÷ the stores' bytes, clip by clip", peaks["clip by clip"], "x", "", ""),
        Figure(
            "train with every run in the cache",
            statistics.median(again),
            "s",
            "<= 2.5",
            f"{5 * (1 + (len(size.streams) > 1) * len(size.streams))} runs; processor time of the whole process, imports too",
        ),
    ]


def train_apart(folder: Path, text: str) -> float:
    """Processor seconds of the stage `train` in a process of its own."""
    (folder / "params.json").write_text(text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", f"from benchmarks.resident import train_all; train_all({str(folder)!r})"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=os.environ | {"AFFECTORY_CACHE": str(folder / "cache")})
    done.check_returncode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def read_mapped(folder: Path, text: str) -> tuple[float, float, float]:
    """Processor seconds to load, and to have read every row besides; MiB held before."""
    return _read(folder, text, lambda data: data)


def read_clip_by_clip(folder: Path, text: str) -> tuple[float, float, float]:
    """The same of the loader of before: each clip normalised, all of them joined, and copied once more."""

    def load(data: Dataset) -> Dataset:
        stored = Index(folder / "index.h5")
        for name, stream in data.streams.items():
            found = stored.stream(name)
            bounds = [slice(*found.store.offsets[r : r + 2]) for r in found.row]
            parts = [(found.store.values[rows].astype(np.float32) - stream.mean) / stream.std for rows in bounds]
            object.__setattr__(stream, "values", torch.from_numpy(np.concatenate(parts).astype(np.float32)))
        return data

    return _read(folder, text, load)


def _read(folder: Path, text: str, load: Callable[[Dataset], Dataset]) -> tuple[float, float, float]:
    torch.set_num_threads(1)
    params = Params.model_validate_json(text)
    held, begun = _resident(), time.process_time()
    places = [folder / f"{name}" for name in ("index.h5", "manifest.parquet", "folds.parquet")]
    data = load(Dataset.load(*places, params, 0))
    loaded = time.process_time()
    for _ in data.batches(torch.arange(len(data.ids)), tuple(data.streams), size=BATCH):
        pass
    return loaded - begun, time.process_time() - begun, held


def _resident() -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def train_all(folder: str) -> None:
    """The stage `train`."""
    params = Params.model_validate_json(Path(folder, "params.json").read_text())
    paths = {name: f"{folder}/{name}.parquet" for name in ("manifest", "folds", "annotations")}
    train(params, f"{folder}/index.h5", **paths, out=f"{folder}/runs")

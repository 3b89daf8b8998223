"""A corpus far larger than any there is, with tiny features, through all that grows with the number of clips.

Manifest, clip cache, store, index, and one epoch of a small network: each in a process of its own, with its time and its
peak memory. What decoding takes is proportional to the number of films, and measured on a few. `docs/scale.md` computes with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from . import apart, cache, corpus
from .figures import Figure

EMOTIONS = ("anger", "joy", "neutral", "sadness")


@dataclass(frozen=True)
class Size:
    clips: int = 100_000
    #: Made-up films of 3 s, 640 × 360, 25 frames per second, that are decoded.
    films: int = 20
    isolated: bool = True


TINY = Size(clips=200, films=1, isolated=False)


def describe(manifest: Path, folds: Path, clips: int) -> int:
    """Manifest and folds: a sentence, a speaker and an emotion for each clip. Returns how many."""
    import polars as pl

    from pipeline.storage import tables

    corpus.transcripts(manifest, clips)
    corpus.folds(folds, clips)
    table = tables.read(manifest)
    emotions = pl.Series("emotion", [EMOTIONS[i % len(EMOTIONS)] for i in range(clips)])
    tables.write(table.with_columns(emotions), manifest)
    return len(table)


def train(index: Path, manifest: Path, folds: Path) -> int:
    """One epoch of a network of one row per clip over all training clips. Returns how many there are."""
    import torch

    from pipeline import params as parameters
    from pipeline.training.data.dataset import Dataset
    from pipeline.training.loop import fit
    from pipeline.training.variants import list_variants, specify_model

    torch.set_num_threads(1)
    params = parameters.parse(
        {
            "recipe": "benchmark",
            "corpus": {"name": "generic", "root": "."},
            "fusion": {"name": "concat"},
            "streams": {"text": corpus.text_stream()},
            "temporal": {"pooling": "mean", "width": 32},
            "task": {"dimensions": []},
            "loss": {"emotion": {"name": "cross_entropy"}},
            "training": {
                "epochs": 1,
                "batch_size": 256,
                "refit": True,
                "select": "last",
                "unimodal": False,
                "linear": None,
            },
        },
        "benchmark",
    )
    data = Dataset.load(index, manifest, folds, params, 0)
    spec = specify_model(params, list_variants(params)[0], data)
    fit(spec, data.read(spec.streams), params, 0)
    return int((data.roles == "train").sum())


def decode(folder: Path, films: int) -> tuple[float, float]:
    """Frames of each film as stage `frames` samples them. Returns processor seconds and bytes per film."""
    from pipeline.data import media
    from pipeline.params import DecodeVideo

    corpus.videos(folder, films)
    cuts = [media.Cut(str(path), None, None) for path in sorted(folder.glob("*.mp4"))]
    media.decode_frames(DecodeVideo(), cuts[0])
    begun = time.process_time()
    bytes_ = sum(media.decode_frames(DecodeVideo(), cut).values.nbytes for cut in cuts)
    return (time.process_time() - begun) / films, bytes_ / films


def measure(folder: Path, size: Size) -> list[Figure]:
    manifest, folds, index = folder / "manifest.parquet", folder / "folds.parquet", folder / "index.h5"
    n = size.clips
    steps = (
        ("manifest", describe, (manifest, folds, n), n, ""),
        ("into the clip cache", cache.fill, (manifest,), n, "8 rows of 32 numbers each"),
        ("looked up and packed", cache.extract, (folder, manifest, 0), n, "nothing to encode"),
        ("index", cache.index, (folder, manifest, folds), n, "joined, checked, mean and deviation per fold"),
        ("load and one epoch", train, (index, manifest, folds), n - len(range(0, n, 5)), "one row per clip, batches of 256"),
    )
    spent, stored = apart.run(decode, folder / "films", size.films, cache=folder / "cache", isolated=size.isolated).value
    films = f"{size.films} films of 3 s, 640 × 360, sampled 4 times a second"
    figures = [
        Figure("a film decoded, processor time", spent, "s", "", films),
        Figure("frames of a film", stored / 1e3, "kB", "", "JPEGs of quality 95, shorter side 256"),
    ]
    for name, function, arguments, clips, note in steps:
        done = apart.run(function, *arguments, cache=folder / "cache", isolated=size.isolated)
        if done.value != clips:
            raise RuntimeError(f"{name}: {done.value} clips, expected {clips}")
        files = f"{done.resident:.0f} MiB with pages of files"
        figures += [
            Figure(f"{n} clips, {name}", done.seconds, "s", "", note),
            Figure(f"{n} clips, {name}, processor time", done.processor, "s", "", "of its process alone"),
            Figure(f"{n} clips, {name}, peak memory", done.anonymous, "MiB", "", files),
        ]
    return figures + [
        Figure(f"{n} clips, {name}", _size(path) / 2**20, "MiB", "", "on the disk")
        for name, path in (("clip cache", folder / "cache"), ("store and tables", folder))
    ]


def _size(folder: Path) -> int:
    """Bytes on the disk; those of the clip cache and the films are not counted with the other files."""
    aside = {folder / "cache", folder / "films"}
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not aside & set(path.parents))

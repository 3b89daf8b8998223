"""The clip cache under `extract`: nothing new, one per cent new, a hundred thousand clips, peak memory.

A text encoder of a few thousand weights, so that what is measured is everything but the encoder; and one as large as
BERT-base, for what a share of the first run means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import apart, corpus
from .figures import Figure


@dataclass(frozen=True)
class Size:
    clips: int = 10_000
    many: int = 100_000
    isolated: bool = True
    workers: int = 2
    #: The encoder that stands for real ones.
    real: dict = field(default_factory=lambda: corpus.BASE_TEXT)


TINY = Size(clips=100, many=200, isolated=False, workers=0, real=corpus.TINY_TEXT)


def extract(folder: Path, manifest: Path, workers: int, architecture: dict | None = None) -> int:
    """Stage `extract` over a manifest. Returns how many clips the store holds."""
    from pipeline.features.extract import extract as stage
    from pipeline.storage.feature_store import Store

    params = corpus.parameters({"text": corpus.text_stream(architecture)}, workers)
    return len(Store(stage(params, "text", manifest=manifest, out=folder / "text.h5")))


def libraries() -> None:
    """What an encoder has to import before it encodes its first clip."""
    import torch  # noqa: F401
    from transformers import BertModel  # noqa: F401


def fill(manifest: Path) -> int:
    """Put an entry of 8 × 32 numbers for every clip straight into the clip cache. Returns how many."""
    import numpy as np

    from pipeline.features.encoders import registry
    from pipeline.features.engine import reader
    from pipeline.storage import tables
    from pipeline.storage.clip_cache import ClipCache
    from pipeline.storage.feature_store import Entry

    stream = corpus.stream(corpus.text_stream())
    work = reader.list_jobs(tables.read(manifest), stream)
    chance = np.random.default_rng(0)
    times = np.stack([np.arange(8), np.arange(1, 9)], 1).astype(np.float32) / 4
    with ClipCache("extract", dict(registry.build(stream).identity)) as cache:
        for low in range(0, len(work), 2000):
            cache.put({job.content: Entry(chance.standard_normal((8, 32), np.float32), times) for job in work[low : low + 2000]})
        return len(cache)


def index(folder: Path, manifest: Path, folds: Path) -> int:
    """Stage `index` over the store. Returns how many clips it found there."""
    from pipeline.features.index import build

    params = corpus.parameters({"text": corpus.text_stream()})
    return build(params, features=folder, manifest=manifest, folds=folds, out=folder / "index.h5")["text"]["ok"]


def measure(folder: Path, size: Size) -> list[Figure]:
    n = size.clips

    def stage(name: str, clips: int, architecture: dict | None = None) -> apart.Measured:
        manifest = folder / f"{clips}.parquet"
        if not manifest.exists():
            corpus.transcripts(manifest, clips)
        done = apart.run(extract, folder, manifest, size.workers, architecture, cache=folder / name, isolated=size.isolated)
        if done.value != clips:
            raise RuntimeError(f"{done.value} clips in the store, expected {clips}")
        return done

    tenth = stage("tenth", n // 10)
    full = stage("full", n)
    again = stage("full", n)
    more = stage("full", n + n // 100)
    real = stage("real", n, size.real)
    real_more = stage("real", n + n // 100, size.real)
    imports = apart.run(libraries, cache=folder / "full", isolated=size.isolated)
    return [
        Figure(f"first run of {n} clips", full.seconds, "s", "", "two reader processes, a tiny text encoder"),
        Figure(f"rerun of {n} clips, all cached", again.seconds, "s", "<= 20", "cache looked up, store packed anew"),
        Figure(
            f"{n // 100} clips more", more.seconds, "s", f"<= {0.02 * full.seconds + 5:.3g}", "at most 2 % of the first run + 5 s"
        ),
        Figure(f"first run of {n} clips, an encoder of BERT-base's size", real.seconds, "s"),
        Figure(
            f"{n // 100} clips more, an encoder of BERT-base's size",
            real_more.seconds,
            "s",
            f"<= {0.02 * real.seconds + 5:.3g}",
            "at most 2 % of the first run + 5 s",
        ),
        Figure(
            "importing torch and transformers",
            imports.seconds,
            "s",
            "",
            f"part of the time of {n // 100} clips more, and of any number",
        ),
        Figure(
            "peak memory of extract, 10 × the clips",
            full.anonymous / tenth.anonymous,
            "ratio",
            "<= 1.1",
            f"own memory of the main process, {n} clips against {n // 10}",
        ),
        Figure(
            "peak memory of extract, 10 × the clips, with pages of the cache file",
            full.resident / tenth.resident,
            "ratio",
            "",
            "the system drops these pages when others need the memory",
        ),
        Figure(f"peak memory of extract, {n} clips", full.anonymous, "MiB", "", "first run"),
        *_many(folder, size),
    ]


def _many(folder: Path, size: Size) -> list[Figure]:
    manifest, folds = folder / "many.parquet", folder / "folds.parquet"
    corpus.transcripts(manifest, size.many)
    corpus.folds(folds, size.many)
    result = []
    for name, function, args in (
        ("into the cache", fill, (manifest,)),
        ("looked up and packed", extract, (folder, manifest, size.workers)),
        ("joined by index", index, (folder, manifest, folds)),
    ):
        done = apart.run(function, *args, cache=folder / "many", isolated=size.isolated)
        if done.value != size.many:
            raise RuntimeError(f"{name}: {done.value} clips, expected {size.many}")
        result += [
            Figure(f"{size.many} clips {name}", done.seconds, "s"),
            Figure(
                f"{size.many} clips {name}, peak memory", done.anonymous, "MiB", "", f"{done.resident:.0f} MiB with file pages"
            ),
        ]
    return result

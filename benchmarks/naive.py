"""Against the common way: for every extractor and clip, decode the video, run the network on that clip, `np.save`."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import corpus
from .figures import Figure, alternate, ratio, seconds

if TYPE_CHECKING:
    from pipeline.features.encoders.encoder import Encoder
    from pipeline.features.encoders.extractor import Extractor

#: Two encoders of the same clips: what differs is which vector is read out.
READOUTS = ("projection", "mean")


@dataclass(frozen=True)
class Size:
    clips: int = 12
    seconds: float = 3.0
    repeats: int = 2
    workers: int = 2


TINY = Size(clips=2, seconds=0.4, repeats=1, workers=0)


def measure(folder: Path, size: Size) -> list[Figure]:
    from pipeline.data import media
    from pipeline.data.decode import video
    from pipeline.features.encoders import registry
    from pipeline.features.encoders.extractor import Clip
    from pipeline.features.engine import run as engine
    from pipeline.features.engine.forward import Forward
    from pipeline.features.engine.reader import Reader, list_jobs
    from pipeline.params import DecodeVideo
    from pipeline.storage import feature_store, media_store, tables
    from pipeline.storage.clip_cache import ClipCache
    from pipeline.workers.pool import Pool

    manifest = corpus.videos(folder / "videos", size.clips, seconds=size.seconds)
    table = tables.read(manifest)
    spec = DecodeVideo()
    streams = {name: corpus.image_stream(corpus.TINY_VIT, folder / "frames.h5", options={"readout": name}) for name in READOUTS}
    params = corpus.parameters(streams, size.workers)
    params = params.model_copy(update={"corpus": params.corpus.model_copy(update={"root": str(folder / "videos")})})
    extractors = {name: registry.build(params.stream(name)) for name in READOUTS}
    # Loaded once for both ways: loading is neither's merit.
    forwards = {name: Forward(extractor, device="cpu") for name, extractor in extractors.items()}
    (folder / "npy").mkdir()
    (folder / "stores").mkdir()

    def common() -> None:
        for name, extractor in extractors.items():
            for row in table.select("id", "video").iter_rows(named=True):
                shots = video.read_frames(folder / "videos" / row["video"], spec)
                prepared = extractor.prepare(Clip(row["id"], frames=shots.jpegs, frame_times=shots.times))
                values, _ = forwards[name]([prepared])[0]
                np.save(folder / "npy" / f"{row['id']}.{name}.npy", values)

    rounds = iter(range(100))

    def ours() -> None:
        base = folder / f"cache{next(rounds)}"
        rows = table.select("id", "video", "content").to_dicts()
        _decode(rows, base)
        for name, extractor in extractors.items():
            work = list_jobs(table, params.stream(name))
            with ClipCache("extract", dict(extractor.identity), base=base) as cache:
                engine.run(
                    _ready(extractor, forwards[name].encoder),
                    Reader(extractor.prepare, "video", folder / "frames.h5"),
                    work,
                    cache,
                    params.run,
                )
                entries = list(cache.iterate(job.content for job in work))
            feature_store.write(
                folder / "stores" / f"{name}.h5",
                [job.id for job in work],
                entries,
                rows=[len(entry.times) for entry in entries],
                shape=entries[0].values.shape[1:],
                dtype="float32",
            )

    def _decode(rows: list[dict], base: Path) -> None:
        # What stage `frames` does, with a cache of its own: the public stage uses the user's.
        function = media.partial(media.decode_frames, spec)
        with ClipCache("frames", {"spec": spec.model_dump()}, base=base) as cache:
            tasks = [(row["content"], media.Cut(str(folder / "videos" / row["video"]), None, None)) for row in rows]
            with Pool(function, workers=size.workers) as pool:
                cache.put({done.key: done.value for done in pool.imap_unordered(tasks)})
            media_store.pack(folder / "frames.h5", rows, "video", cache, {"spec": spec.model_dump()}, {})

    start = seconds(ours)
    taken = alternate({"common": common, "ours": ours}, size.repeats)
    apart = max(_difference(folder, name, table["id"].to_list()) for name in READOUTS)
    per = size.clips * len(READOUTS)
    return [
        Figure(
            "pipeline ÷ one clip at a time",
            ratio(taken["common"], taken["ours"]),
            "ratio",
            "",
            f"{size.clips} clips of {size.seconds:g} s at 640 × 360, {len(READOUTS)} small encoders, both with 2 threads",
        ),
        Figure("one clip at a time, a decode per encoder", per / statistics.median(taken["common"]), "features/s"),
        Figure(
            "pipeline: decode once, batches, cache, store",
            per / statistics.median(taken["ours"]),
            "features/s",
            "",
            f"first time, with the start of the worker processes: {per / start:.3g}",
        ),
        Figure("largest difference of a value", apart, "", "<= 1e-05", "between the two ways, float32"),
    ]


def _ready(extractor: Extractor, encoder: Encoder) -> Extractor:
    from dataclasses import replace

    return replace(extractor, load=lambda device: encoder)


def _difference(folder: Path, name: str, ids: list[str]) -> float:
    from pipeline.storage.feature_store import Store

    ours = Store(folder / "stores" / f"{name}.h5")
    return max(float(np.abs(ours[clip].values - np.load(folder / "npy" / f"{clip}.{name}.npy")).max()) for clip in ids)

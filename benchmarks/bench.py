"""One encoder on one device, measured in several ways on the same clips."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import Figure, alternate, count_flops, ratio, seconds
from .networks import Network

if TYPE_CHECKING:
    from pipeline.features.encoders.extractor import Extractor, Prepared
    from pipeline.features.engine.forward import Forward
    from pipeline.features.engine.reader import Job, Reader
    from pipeline.params import Stream

    from .gpu import Size


class Bench:
    """An encoder and clips; whatever is asked for is loaded then.

    Args:
        folder: for caches and files.
        manifest, source: clips and their media store.
        dtype: of weights and arithmetic.
    """

    def __init__(self, network: Network, folder: Path, manifest: Path, source: Path, device: str, dtype: str, size: Size) -> None:
        self.network, self.folder, self.manifest, self.source = network, folder, manifest, source
        self.device, self.dtype, self.size = device, dtype, size
        self._rounds = 0

    def close(self) -> None:
        """Give the networks back."""
        self.__dict__.pop("forward", None)

    def stream(self, dtype: str, **options: object) -> Stream:
        """The stream with this dtype."""
        return self.network.stream(self.source, dtype, small=self.size.small, **options)

    @cached_property
    def extractor(self) -> Extractor:
        """As the stage builds it."""
        from pipeline.features.encoders import registry

        return registry.build(self.stream(self.dtype))

    @cached_property
    def forward(self) -> Forward:
        """The network on the device."""
        from pipeline.features.engine.forward import Forward

        return Forward(self.extractor, self.device)

    @cached_property
    def jobs(self) -> list[Job]:
        """Of all clips."""
        from pipeline.features.engine.reader import list_jobs
        from pipeline.storage import tables

        return list_jobs(tables.read(self.manifest), self.stream(self.dtype))

    @cached_property
    def reader(self) -> Reader:
        """Of the media store."""
        from pipeline.features.engine.reader import Reader

        return Reader(self.extractor.prepare, self.network.modality, self.source)

    @cached_property
    def batches(self) -> list[list[Prepared]]:
        """Prepared clips as the engine puts them together."""
        from pipeline.features.engine.batcher import batches

        prepared = [(job, self.reader(job)) for job in self.jobs]
        return [[item for _, item in batch] for batch in batches(prepared, self.extractor.budget)]

    def bare(self, forward: Callable[[list], Any] | None = None) -> None:
        """The forward pass of batches that are ready; results come back from the device."""
        run = forward or self.forward
        for batch in self.batches:
            run(batch)

    def run_engine(self, extractor: Extractor, reader: Reader, forward: Forward) -> None:
        """Reading, encoding, committing, with a network that is loaded."""
        from pipeline.features.engine import run as engine
        from pipeline.params import Run
        from pipeline.storage.clip_cache import ClipCache

        self._rounds += 1
        loaded = replace(extractor, load=lambda device: forward.encoder)
        with ClipCache("extract", {"round": self._rounds}, base=self.folder / "cache") as cache:
            stats = engine.run(loaded, reader, self.jobs, cache, Run(workers=self.size.workers), device=self.device)
            if stats.failures:
                raise RuntimeError(f"{len(stats.failures)} clips failed, the first: {next(iter(stats.failures.values()))}")

    def loop(self) -> None:
        """One clip after the other: read, prepare, encode alone, a file for each; the network is loaded once."""
        out = self.folder / "npy"
        out.mkdir(parents=True, exist_ok=True)
        for job in self.jobs:
            ((values, _),) = self.forward([self.reader(job)])
            np.save(out / f"{job.id}.npy", values)

    def _name(self, what: str) -> str:
        return f"{self.network.title}: {what}"

    def _speed(self, taken: list[float]) -> float:
        return len(self.jobs) / statistics.median(taken)

    def forward_alone(self) -> list[Figure]:
        """Clips per second of the network alone."""
        self.bare()
        taken = [seconds(self.bare) for _ in range(self.size.repeats)]
        clip = f"{self.size.frames} frames" if self.network.modality == "video" else f"{self.size.sound:g} s of sound"
        note = f"{len(self.jobs)} clips of {clip}, {len(self.batches)} batches, {self.dtype}"
        return [Figure(self._name("bare forward"), self._speed(taken), "clips/s", "", note)]

    def engine(self, target: str) -> list[Figure]:
        """The engine's speed against the network's alone; aims hold on a GPU."""

        def engine() -> None:
            self.run_engine(self.extractor, self.reader, self.forward)

        self.bare()
        engine()
        taken = alternate({"bare": self.bare, "engine": engine}, self.size.repeats)
        share = ratio(taken["bare"], taken["engine"])
        note = f"{self._speed(taken['engine']):.3g} clips/s, {self.size.workers} readers, JPEG or FLAC decoding counted"
        return [Figure(self._name("engine ÷ bare forward"), share, "ratio", target if self.device != "cpu" else "", note)]

    def peers(self) -> list[Figure]:
        """What a script does that takes one clip at a time."""

        def engine() -> None:
            self.run_engine(self.extractor, self.reader, self.forward)

        self.loop()
        taken = alternate({"loop": self.loop, "engine": engine}, self.size.repeats)
        note = f"{self._speed(taken['loop']):.3g} clips/s: read, prepare, encode alone, one .npy each"
        return [Figure(self._name("one clip after the other ÷ engine"), ratio(taken["engine"], taken["loop"]), "ratio", "", note)]

    def ceiling(self, peak: float | None) -> list[Figure]:
        """Products that the network asks for, counted, and their share of what the card can do."""
        flops = count_flops(self.bare) / len(self.jobs)
        taken = statistics.median(seconds(self.bare) for _ in range(self.size.repeats)) / len(self.jobs)
        found = [Figure(self._name("counted"), flops / 1e9, "GFLOP", "", "of products and convolutions, per clip")]
        if peak is None:
            raise RuntimeError("the product of matrices was not taken")
        note = f"at most {peak * 1e12 / flops:.3g} clips/s: the rate of a product of large matrices, {self.dtype}"
        share = flops / taken / (peak * 1e12)
        return [*found, Figure(self._name("share of what the card can do"), share, "ratio", "", note)]

    def parity(self, dtype: str) -> list[Figure]:
        """Features in half precision against float32: the least cosine of two rows, and the largest difference of a value."""
        from pipeline.features.encoders import registry
        from pipeline.features.engine.forward import Forward

        few, rows = [batch[:2] for batch in self.batches[:2]], {}
        weights = None
        for kind in ("float32", dtype):
            forward = Forward(registry.build(self.stream(kind)), self.device)
            network = forward.encoder.network
            if weights is not None:
                network.load_state_dict(weights)  # a stand-in draws others in another dtype
            weights = network.state_dict()
            found = [values for batch in few for values, _ in forward(batch)]
            rows[kind] = np.concatenate([one.reshape(-1, one.shape[-1]) for one in found]).astype(np.float64)
        whole, half = rows["float32"], rows[dtype]
        norms = np.linalg.norm(whole, axis=1) * np.linalg.norm(half, axis=1)
        cosine = float(((whole * half).sum(1) / norms).min())
        apart = float(np.abs(whole - half).max() / whole.std())
        note = f"largest difference of a value: {apart:.3g} of the features' standard deviation"
        return [Figure(self._name(f"{dtype} against float32"), cosine, "cosine", "", note)]

    def layout(self) -> list[Figure]:
        """Weights channels-last against contiguous."""
        import torch

        network, places = self.forward.encoder.network, ("contiguous_format", "channels_last")

        def run(place: str) -> None:
            network.to(memory_format=getattr(torch, place))
            self.bare()

        try:
            for place in places:
                run(place)
            taken = alternate({place: lambda place=place: run(place) for place in places}, self.size.repeats)
        finally:
            self.close()  # as it came, for whoever is next
        share = ratio(taken["contiguous_format"], taken["channels_last"])
        return [Figure(self._name("channels-last ÷ contiguous"), share, "ratio", "", "speed of the bare forward pass")]

    def compiled(self) -> list[Figure]:
        """`run.compile` against the network as it is."""
        from pipeline.features.engine.forward import Forward

        forward = Forward(self.extractor, self.device)
        if not forward.encoder.compile():
            raise RuntimeError("this encoder is not compiled")
        start = seconds(lambda: self.bare(forward))
        self.bare()
        taken = alternate({"plain": self.bare, "compiled": lambda: self.bare(forward)}, self.size.repeats)
        note = f"speed of the bare forward pass; the first pass takes {start:.3g} s"
        return [Figure(self._name("compiled ÷ as it is"), ratio(taken["plain"], taken["compiled"]), "ratio", "", note)]

    def nvjpeg(self) -> list[Figure]:
        """`options.decoder: nvjpeg` against Pillow in the readers."""
        from pipeline.features.encoders import registry
        from pipeline.features.engine.forward import Forward

        extractor = registry.build(self.stream(self.dtype, decoder="nvjpeg"))
        forward, reader = Forward(extractor, self.device), replace(self.reader, prepare=extractor.prepare)
        ways = {
            "pillow": lambda: self.run_engine(self.extractor, self.reader, self.forward),
            "nvjpeg": lambda: self.run_engine(extractor, reader, forward),
        }
        for way in ways.values():
            way()
        taken = alternate(ways, self.size.repeats)
        note = f"speed of the engine; {self._speed(taken['nvjpeg']):.3g} clips/s"
        return [
            Figure(self._name("engine with nvJPEG ÷ with Pillow"), ratio(taken["pillow"], taken["nvjpeg"]), "ratio", "", note)
        ]

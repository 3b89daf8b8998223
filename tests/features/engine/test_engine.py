"""The engine: exactly the missing clips are computed, errors stay with their clip, a kill loses nothing."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.devices import pick_devices
from pipeline.errors import CacheError, DeviceError
from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.extractor import Clip, Extractor, Missing, Prepared
from pipeline.features.engine import run as engine
from pipeline.features.engine.forward import Forward
from pipeline.features.engine.reader import Job, Reader
from pipeline.params import Run
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Status

ROOT = Path(__file__).resolve().parents[3]
TIMES = np.array([[0, 1]], np.float32)


@dataclass(frozen=True)
class Prepare:
    def __call__(self, clip: Clip) -> Prepared:
        if clip.text is None:
            raise Missing("no transcript")
        if clip.text == "unreadable":
            raise ValueError("bad words")
        return Prepared({"n": np.array([len(clip.text)], np.float32)}, TIMES, cost=1.0)


class Doubler(Encoder):
    """Doubles the length of the text; knows how often and on what it was called."""

    def __init__(self, most=99, poison=None, error=RuntimeError("kernel failed")):  # noqa: B008
        self.batches, self.most, self.poison, self.error = [], most, poison, error

    def load(self, device="cpu"):
        return self

    def encode(self, batch):
        self.batches.append(len(batch))
        if len(batch) > self.most:
            raise MemoryError("out of memory")
        lengths = [float(p.inputs["n"][0]) for p in batch]
        if self.poison in lengths:
            raise self.error
        return [np.array([[2 * n]], np.float32) for n in lengths]


def jobs(texts):
    return [Job(f"clip{i}", f"c{i}", text) for i, text in enumerate(texts)]


def run(forward, work, **options):
    extractor = Extractor({"family": "test"}, Prepare(), forward.load, budget=8)
    with ClipCache("extract", extractor.identity) as cache:
        missing = cache.missing(job.content for job in work)
        todo = [job for job in work if job.content in missing]
        reader = Reader(extractor.prepare, "text", None)
        stats = engine.run(extractor, reader, todo, cache, Run(**({"workers": 0} | options)))
        return stats, {job.id: cache.get(job.content) for job in work}


def test_only_missing_clips_are_computed():
    work = jobs(["a" * n for n in range(1, 21)])
    first = Doubler()
    stats, entries = run(first, work)
    assert sum(first.batches) == 20 == stats.clips
    assert [entries[f"clip{i}"].values.item() for i in range(20)] == [2 * (i + 1) for i in range(20)]
    again = Doubler()
    run(again, [*work, Job("new", "new", "four")], batch=0.2)
    assert again.batches == [1]


def test_missing_modality_is_cached_and_failure_is_not():
    work = jobs(["fine", None, "unreadable"])
    stats, entries = run(Doubler(), work)
    assert entries["clip0"].status == Status.OK
    assert entries["clip1"].status == Status.MISSING and entries["clip1"].reason == "no transcript"
    assert entries["clip2"] is None and list(stats.failures) == ["c2"] and "bad words" in stats.failures["c2"]


def test_out_of_memory_halves_the_batch():
    forward = Doubler(most=3)
    stats, entries = run(forward, jobs(["a" * n for n in range(1, 9)]))
    assert stats.halvings > 0 and not stats.failures
    assert [entries[f"clip{i}"].values.item() for i in range(8)] == [2 * (i + 1) for i in range(8)]


def test_an_error_of_one_clip_costs_that_clip():
    stats, entries = run(Doubler(poison=5.0), jobs(["a" * n for n in range(1, 9)]))
    assert list(stats.failures) == ["c4"]
    assert sum(entry is not None for entry in entries.values()) == 7


@pytest.mark.parametrize("error", [TypeError("no such argument"), KeyError("pixels")])
def test_a_mistake_in_the_code_is_no_clips_fault(error):
    with pytest.raises(type(error)):
        run(Doubler(poison=5.0, error=error), jobs(["a" * n for n in range(1, 9)]))


def test_values_that_are_not_finite_are_a_failure():
    class Sick(Doubler):
        def encode(self, batch):
            return [np.array([[np.nan]], np.float32) for _ in batch]

    stats, entries = run(Sick(), jobs(["a"]))
    assert entries["clip0"] is None and "not finite" in stats.failures["c0"]


def test_full_cache_stops_with_one_line(monkeypatch):
    def full(self, entries):
        raise CacheError("disk full")

    monkeypatch.setattr(ClipCache, "put", full)
    with pytest.raises(CacheError, match="disk full"):
        run(Doubler(), jobs(["a"] * 3))


def test_stats_add_up():
    stats, _ = run(Doubler(), jobs(["a", "b"]))
    numbers = stats.report()
    assert numbers["read_share"] + numbers["infer_share"] + numbers["write_share"] == pytest.approx(1, abs=1e-3)
    both = stats.merge(stats)
    assert both.clips == 4 and both.total == stats.total


def test_every_clip_is_counted_once_whatever_became_of_it():
    """Encoded, without the modality, unreadable, and refused by the encoder: the bar and the numbers end at all of them."""
    work = jobs(["a", None, "aaa", "unreadable", None, "a" * 6, "aaaaa"])
    extractor = Extractor({"family": "counted"}, Prepare(), Doubler(poison=6.0).load, budget=2)
    steps = []
    with ClipCache("extract", extractor.identity) as cache:
        stats = engine.run(extractor, Reader(extractor.prepare, "text", None), work, cache, Run(workers=0), advance=steps.append)
        there = [cache.get(job.content) for job in work]
    assert stats.clips == sum(steps) == 7 and all(step > 0 for step in steps)
    assert sorted(stats.failures) == ["c3", "c5"] and stats.report()["failed"] == 2
    assert [None if entry is None else entry.status for entry in there] == [
        Status.OK, Status.MISSING, Status.OK, None, Status.MISSING, None, Status.OK,
    ]  # fmt: skip
    assert stats.total >= stats.load > 0 and stats.infer > 0
    assert stats.read + stats.infer + stats.write <= stats.total


def test_an_engine_that_stops_reads_no_further():
    """What was read ahead is bounded, and whoever waits is told at once."""
    read = []

    def prepare(clip):
        read.append(clip.id)
        return Prepared({"n": np.ones(1, np.float32)}, TIMES)

    extractor = Extractor({"family": "stopped"}, prepare, Doubler(poison=1.0, error=KeyError("pixels")).load, budget=1)
    before = {thread.name for thread in threading.enumerate()}
    with ClipCache("extract", extractor.identity) as cache, pytest.raises(KeyError, match="pixels"):
        engine.run(extractor, Reader(prepare, "text", None), jobs(["a"] * 5000), cache, Run(workers=0))
    assert 0 < len(read) <= 2 * engine.AHEAD + 16
    assert {thread.name for thread in threading.enumerate()} <= before


@pytest.mark.parametrize("name", ["cuda:99", "cuda:0,cuda:98", "tpu"])
def test_absent_device_is_a_line(name):
    with pytest.raises(DeviceError, match="run.device"):
        pick_devices(name)


def test_apples_gpu_is_for_encoders_alone_and_refused_where_there_is_none(monkeypatch, caplog):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(DeviceError, match="run.device is mps, but torch sees no Apple GPU on this machine; use"):
        pick_devices("mps", encodes=True)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert pick_devices("mps", encodes=True) == ["mps"] and not caplog.messages
    caplog.set_level("INFO")
    assert pick_devices("mps") == ["cpu"] and caplog.messages == ["run.device mps is for encoders; this runs on the processor"]
    for name in ("mps:1", "mps,cpu"):
        with pytest.raises(DeviceError, match="use auto, cpu, cuda"):
            pick_devices(name, encodes=True)


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("The operator 'aten::unfold_backward' is not currently implemented for the MPS device. If you want"),
        TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."),
    ],
)
def test_what_apples_gpu_lacks_is_the_encoders_matter_and_no_clips(error):
    doubler = Doubler(poison=1.0, error=error)
    doubler.network = object()
    extractor = Extractor({"family": "apple"}, None, doubler.load, budget=1)
    batch = [Prepared({"n": np.ones(1, np.float32)}, TIMES)]
    with pytest.raises(
        DeviceError, match=r"^this encoder cannot run on mps \((The operator|Cannot convert).*; set run.device to cpu"
    ):
        Forward(extractor, "mps")(batch)
    with pytest.raises(type(error)):
        Forward(extractor, "cpu")(batch)


def test_processor_needs_no_framework():
    assert pick_devices("cpu") == ["cpu"]


SCRIPT = textwrap.dedent("""
    import json, os, random, signal, sys, time
    from pathlib import Path
    import numpy as np
    from pipeline.features.encoders.encoder import Encoder
    from pipeline.features.engine import run as engine, writer
    from pipeline.storage import feature_store as store
    from pipeline.storage.clip_cache import ClipCache
    from pipeline.features.encoders.extractor import Extractor, Prepared
    from pipeline.features.engine.reader import Job, Reader
    from pipeline.params import Run

    writer.COMMIT = 0.05
    TIMES = np.array([[0, 1]], np.float32)
    WORK = [Job(f"c{i:03d}", f"c{i:03d}", "a" * (i + 1)) for i in range(120)]

    def prepare(clip):
        return Prepared({"n": np.array([len(clip.text)], np.float32)}, TIMES)

    class Slow(Encoder):
        def __init__(self, device):
            pass

        def encode(self, batch):
            time.sleep(0.02)
            return [p.inputs["n"][None] * np.arange(4, dtype=np.float32) for p in batch]

    def todo(cache):
        missing = cache.missing(job.content for job in WORK)
        return [job for job in WORK if job.content in missing]

    def work(out):
        extractor = Extractor({"family": "kill"}, prepare, Slow, budget=4)
        with ClipCache("extract", extractor.identity) as cache:
            engine.run(extractor, Reader(prepare, "text", None), todo(cache), cache, Run(workers=0))
            store.write(out, [j.id for j in WORK], cache.iterate([j.content for j in WORK]), rows=[1] * 120, shape=(4,))

    def child(out):
        # Imports are done: a fork starts at once, so that the kill falls into the work.
        pid = os.fork()
        if pid == 0:
            try:
                work(out)
            finally:
                os._exit(0)
        return pid

    folder, chance, result = Path(sys.argv[1]), random.Random(0), {"kills": 0, "stores": [], "seen": []}
    os.environ["AFFECTORY_CACHE"] = str(folder / "whole")
    os.waitpid(child(folder / "whole.h5"), 0)
    for series in range(3):
        os.environ["AFFECTORY_CACHE"] = str(folder / f"killed{series}")
        out = folder / f"killed{series}.h5"
        for _ in range(10):
            pid = child(out)
            time.sleep(chance.uniform(0.0, 0.15))
            os.kill(pid, signal.SIGKILL)
            result["kills"] += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            if out.exists():
                result["seen"].append(out.read_bytes() == (folder / "whole.h5").read_bytes())
        os.waitpid(child(out), 0)
        result["stores"].append(out.read_bytes() == (folder / "whole.h5").read_bytes())
    print(json.dumps(result))
""")


@pytest.mark.slow
def test_kill_at_thirty_random_moments(tmp_path):
    """SIGKILL between start and pack: the next run goes on, and the final bytes are those of an undisturbed run."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    result = json.loads(done.stdout)
    assert result["kills"] >= 20
    assert result["stores"] == [True, True, True]
    assert all(result["seen"])


def test_an_encoder_that_returns_too_few_clips_is_refused():
    """Rows would go to the wrong clips, or clips be lost."""

    class Forgetful(Doubler):
        def encode(self, batch):
            return super().encode(batch)[:-1]

    forward = Forward(Extractor({"family": "test"}, Prepare(), Forgetful().load))
    with pytest.raises(ValueError, match="zip"):
        forward([Prepare()(Clip("a", text="one")), Prepare()(Clip("b", text="three"))])

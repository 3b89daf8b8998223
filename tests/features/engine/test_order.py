"""Which clips meet in a batch is no matter of chance: not of the quickest reader, not of where a run was stopped."""

import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.engine import run as engine
from pipeline.features.engine.reader import Job, Reader
from pipeline.params import Run
from pipeline.storage.clip_cache import ClipCache

TIMES = np.array([[0, 1]], np.float32)
COSTS = np.random.default_rng(0).uniform(0.1, 3.0, 60)
WORK = [Job(f"clip{i:02d}", f"c{i:02d}", text=str(i)) for i in range(len(COSTS))]


@dataclass
class Prepare:
    """Takes a moment, another for every clip and seed."""

    seed: int | None = None
    delays: np.ndarray = field(init=False)

    def __post_init__(self):
        self.delays = np.zeros(len(WORK))
        if self.seed is not None:
            self.delays = np.random.default_rng(self.seed).uniform(0, 0.02, len(WORK))

    def __call__(self, clip: Clip) -> Prepared:
        i = int(clip.text)
        time.sleep(self.delays[i])
        return Prepared({"n": np.array([i])}, TIMES, cost=COSTS[i], bucket=i % 2)


class Mixer(Encoder):
    """Features that depend on the batch through and through; stops the run before its `stop`-th batch."""

    def __init__(self, stop=None):
        self.stop, self.batches = stop, 0

    def encode(self, batch):
        if self.batches == self.stop:
            raise KeyboardInterrupt
        self.batches += 1
        together = [int(item.inputs["n"][0]) for item in batch]
        return [np.array([[n, *together, *[-1] * (len(WORK) - len(together))]], np.float32) for n in together]


def run(name, *, forward=None, prepare=None, workers=0):
    forward = forward or Mixer()
    extractor = Extractor({"family": "order"}, prepare or Prepare(), lambda device: forward, budget=5)
    with ClipCache("extract", {"run": name}) as cache:
        missing = cache.missing(job.content for job in WORK)
        todo = [job for job in WORK if job.content in missing]
        engine.run(extractor, Reader(extractor.prepare, "text", None), todo, cache, Run(workers=workers))
        return forward.batches, np.stack([cache.get(job.content).values for job in WORK])


def test_quick_and_slow_readers_make_the_same_batches():
    _, expected = run("plain")
    for seed in (1, 2):
        np.testing.assert_array_equal(run(seed, prepare=Prepare(seed), workers=2)[1], expected)


def test_a_stopped_run_goes_on_with_the_batches_it_would_have_made():
    batches, expected = run("plain")
    assert batches > 20
    for stop in range(0, batches, 3):
        with pytest.raises(KeyboardInterrupt):
            run(stop, forward=Mixer(stop))
        left, found = run(stop)
        assert left == batches - stop
        np.testing.assert_array_equal(found, expected)

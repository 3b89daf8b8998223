"""Run-time options of the device: they change how, not what."""

import copy
import logging

import numpy as np
import pytest

from pipeline.features.encoders import registry, transfer
from pipeline.features.encoders.encoder import Computed
from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.features.engine import run as engine
from pipeline.features.engine.reader import Job, Reader
from pipeline.params import Run, Stream
from pipeline.storage.clip_cache import ClipCache

ARCHITECTURE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 16,
    "image_size": 32,
    "projection_dim": 8,
}
TIMES = np.array([[0, 1]], np.float32)
#: The compiler imports parts of torch that torch itself calls deprecated.
LIBRARY = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def encode(encoder, run=None, prepare=None, count=6):
    extractor = Extractor({"family": "test"}, prepare or Noise(), lambda device: encoder, budget=3)
    work = [Job(f"clip{i}", f"c{i}", text="x" * i) for i in range(count)]
    with ClipCache("extract", {"run": repr(run)}) as cache:
        stats = engine.run(extractor, Reader(extractor.prepare, "text", None), work, cache, run or Run(workers=0))
        assert not stats.failures
        return np.stack([cache.get(job.content).values for job in work])


class Noise:
    """Clip → one frame of noise."""

    def __call__(self, clip):
        pixels = np.random.default_rng(len(clip.text)).integers(0, 256, (1, 32, 32, 3), np.uint8)
        return Prepared({"pixels": pixels}, TIMES)


def test_staging_on_a_processor_copies_nothing():
    torch = pytest.importorskip("torch")
    array = np.arange(6, dtype=np.float32)
    assert transfer.to_device(array, "cpu").data_ptr() == array.ctypes.data
    tower = torch.nn.Conv2d(3, 4, 2)
    before = tower.weight.stride()
    assert transfer.place_tower(tower, "cpu").weight.stride() == before


@LIBRARY
def test_compiled_tower_gives_the_same_features(monkeypatch):
    """Two batch sizes, so that a compiled tower meets another shape. Without the kernels' compiler, which takes a minute."""
    torch = pytest.importorskip("torch")
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="aot_eager"))
    stream = Stream(modality="video", source="f", encoder="clip", weights="random:0", architecture=ARCHITECTURE)
    plain, compiled = (registry.build(stream).load(device="cpu") for _ in range(2))
    expected = encode(plain, Run(workers=0), count=7)
    before = compiled.read
    found = encode(compiled, Run(workers=0, compile=True), count=7)
    assert compiled.read is not before
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_compile_is_said_to_do_nothing_where_lengths_differ(caplog):
    caplog.set_level(logging.INFO)
    encode(Computed("pixels"), Run(workers=0, compile=True))
    assert "not compiled" in caplog.text


@LIBRARY
def test_a_tower_that_cannot_be_compiled_runs_as_it_is(monkeypatch):
    torch = pytest.importorskip("torch")
    stream = Stream(modality="video", source="f", encoder="clip", weights="random:0", architecture=ARCHITECTURE)
    encoder = registry.build(stream).load(device="cpu")
    expected = encode(encoder)

    def broken(module, inputs):
        raise RuntimeError("no compiler")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=broken))
    found = encode(copy.copy(encoder), Run(workers=0, compile=True))
    np.testing.assert_array_equal(found, expected)

"""Every benchmark runs on a few clips and says what it promises. Nothing here asserts on speed."""

import json
import math
from functools import partial

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import bench, epoch
from benchmarks import gpu as gpu_rows
from benchmarks.figures import Figure, alternate, ratio

#: Targets every benchmark must put beside a figure.
TARGETS = {
    "manifest": 4,
    "store": 2,
    "cache": 4,
    "efficiency": 0,
    "readouts": 1,
    "naive": 1,
    "invariance": 1,
    "resident": 3,
    "epoch": 4,
    "contrast": 2,
    "members": 0,
    "language": 8,
    "peak": 2,
    "million": 0,
    "dag": 2,
    "predict": 2,
}


@pytest.mark.parametrize("name", [name for name in command.BENCHMARKS if name != "gpu"])
def test_runs(name):
    figures = command.run(name, tiny=True)
    assert len({figure.name for figure in figures}) == len(figures)
    assert sum(bool(figure.target) for figure in figures) == TARGETS[name]
    for figure in figures:
        if name in ("dag", "predict"):  # there is no finished workspace
            assert figure.value is None and "make repro" in figure.note
        else:
            assert math.isfinite(figure.value) and figure.value >= 0, figure
    if name == "members":
        assert all(figure.value < 1e-4 for figure in figures if "difference" in figure.name)
    if name == "naive":
        assert next(figure for figure in figures if "difference" in figure.name).met


def test_file_keeps_other_benchmarks(tmp_path):
    out = tmp_path / "results.json"
    assert command.main(["dag", "--tiny", "--out", str(out)]) == 0
    command.save(out, {"store": [Figure("read", 0.123456, "ratio", ">= 0.9")]}, {"cores": 2})
    found = json.loads(out.read_text())
    assert set(found) == {"dag", "store"}
    assert found["store"]["figures"][0]["value"] == 0.1235 and found["store"]["figures"][0]["met"] is False
    assert found["dag"]["figures"][0]["met"] is None
    assert {"cores", "memory_gib", "torch"} <= set(found["dag"]["machine"])


def test_unknown_name_is_a_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["speed"])
    assert "no benchmark 'speed'" in capsys.readouterr().err


def test_targets():
    assert Figure("", 20.0, "s", "<= 20").met and not Figure("", 0.84, "ratio", ">= 0.85").met
    assert Figure("", 1.0, "s").met is None and Figure("", None, "s", "<= 3").met is None


def test_functions_take_turns():
    order = []
    taken = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3 and len(taken["a"]) == 3
    assert ratio([1.0, 9.0, 4.0], [1.0, 3.0, 2.0]) == 2.0


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """Figures of `gpu` by name, small and on the processor."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # seconds of a C++ compiler elsewhere

    monkeypatch.setattr(epoch, "CASES", {"one": {**epoch.CASES["one row per clip, two views"], "views": 0}})

    def take(*networks: str) -> dict[str, Figure]:
        figures = command.run("gpu", tiny=True, networks=networks)
        assert len({figure.name for figure in figures}) == len(figures)
        return {figure.name: figure for figure in figures}

    return take


def test_gpu_rows_are_what_they_say(gpu):
    found = gpu("CLIP ViT-B/32")
    # Without a GPU one row cannot be taken, and says why.
    (lacking,) = [figure for figure in found.values() if figure.value is None]
    assert "nvJPEG" in lacking.name and "decodes on a GPU" in lacking.note
    # Of TINY_VIT: 2 frames; 3 layers of 96, 4 + 2 × 2 products a token, 50 tokens; pixels to tokens; the projection.
    width, tokens, layers = 96, 50, 3
    block = tokens * (4 * width * width + 2 * width * 2 * width) + 2 * tokens * tokens * width
    frame = 2 * (layers * block + 49 * 16 * 16 * 3 * width + width * 64)
    assert found["CLIP ViT-B/32: counted"].value == pytest.approx(2 * frame / 1e9, rel=1e-6)
    for half, least in (("float16", 0.99999), ("bfloat16", 0.999)):
        assert least < found[f"CLIP ViT-B/32: {half} against float32"].value <= 1.000001
    speeds = [figure for figure in found.values() if figure.unit in ("ratio", "clips/s", "ms", "TFLOP/s")]
    assert len(speeds) == 13 and all(math.isfinite(figure.value) and figure.value > 0 for figure in speeds)


def test_a_row_that_fails_leaves_the_others(gpu, monkeypatch):
    def fail(self):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(bench.Bench, "engine", lambda self, target: fail(self))
    monkeypatch.setattr(epoch, "CASES", {})
    monkeypatch.setattr(bench.Bench, "compiled", lambda self: [])
    others = ("HuBERT-base", "Whisper-large", "VideoMAE-base", "EVA-CLIP ViT-g/14, 448 px")
    found = gpu(*others)
    failed = {name: figure.note for name, figure in found.items() if figure.value is None}
    assert failed == dict.fromkeys(
        [f"{name}: engine ÷ bare forward" for name in others], "not taken: RuntimeError: out of memory"
    )
    for name in others:
        assert found[f"{name}: one clip after the other ÷ engine"].value > 0
        assert 0.999 < found[f"{name}: float16 against float32"].value <= 1.000001


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_says_that_there_is_none(tmp_path):
    (figure,) = gpu_rows.measure(tmp_path, gpu_rows.Size())
    assert figure.value is None and "--device cpu --small" in figure.note


def test_number_of_clips_is_an_option():
    names = {figure.name for figure in command.run("million", tiny=True, clips=50)}
    assert {"50 clips, manifest", "50 clips, load and one epoch, peak memory"} <= names
    with pytest.raises(SystemExit, match="2"):
        command.main(["million", "--clips", "0"])

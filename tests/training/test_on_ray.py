"""Training runs on a Ray cluster; on a real one in tests/features/engine/test_ray.py, which has it."""

import pytest

from pipeline.errors import DeviceError
from pipeline.training.on_ray import Packed, keep
from pipeline.training.stage import train


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_cluster_that_is_not_there_is_one_line(fabricate):
    pytest.importorskip("ray")
    corpus = fabricate(clips=30)
    params = corpus.params(run={"engine": "ray", "ray_address": "nowhere"})
    with pytest.raises(DeviceError, match="run.ray_address is 'nowhere'"):
        train(params, corpus.index(params), **corpus.files, out=corpus.path("runs"))


def test_a_run_that_came_from_a_node_is_kept_once(tmp_path):
    first, second = (Packed("key", {"history.json": text, "config.json": b"{}"}, "node") for text in (b"[1]", b"[2]"))
    keep(first)
    keep(second)
    assert files(tmp_path / "cache" / "runs" / "key" / "run") == {"history.json": b"[1]", "config.json": b"{}"}

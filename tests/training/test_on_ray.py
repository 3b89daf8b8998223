"""Training runs on a Ray cluster are those of this machine."""

import shutil

import pytest

from pipeline.errors import DeviceError
from pipeline.training.on_ray import Packed, keep
from pipeline.training.stage import train


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_on_a_cluster_are_those_of_this_machine(fabricate, monkeypatch, tmp_path):
    pytest.importorskip("ray")
    corpus = fabricate(clips=30)
    training = {"epochs": 2, "seeds": 2, "linear": {}}
    here = corpus.params(training=training)
    there = corpus.params(training=training, run={"engine": "ray"})
    train(here, corpus.index(here), **corpus.files, out=corpus.path("here"))
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "other"))
    train(there, corpus.path("data/index.h5"), **corpus.files, out=corpus.path("there"))
    assert files(corpus.path("there")) == files(corpus.path("here"))

    # What is in the cache asks no cluster.
    shutil.rmtree(corpus.path("there"))
    nowhere = corpus.params(training=training, run={"engine": "ray", "ray_address": "nowhere"})
    train(nowhere, corpus.path("data/index.h5"), **corpus.files, out=corpus.path("there"))
    assert files(corpus.path("there")) == files(corpus.path("here"))


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

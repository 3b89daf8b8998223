"""Actors that share tasks, on a pretended cluster: who is replaced, who is charged, and what is said when nothing goes."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline import params as parameters
from pipeline import ray_cluster
from pipeline.errors import DeviceError, ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Extractor
from pipeline.features.engine import ray_engine
from pipeline.features.engine.devices import compute
from pipeline.features.engine.reader import Job, Reader
from pipeline.features.engine.stats import Stats
from pipeline.features.engine.task import Task
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry
from pipeline.workers import ray_actors


def settings(**run) -> parameters.Params:
    return parameters.parse(
        {
            "recipe": "test",
            "corpus": {"name": "test", "root": "."},
            "fusion": {"name": "gated"},
            "streams": {
                "text": {"modality": "text", "source": "data/manifest.parquet", "encoder": "text", "weights": "random:0"}
            },
            "run": {"device": "cpu", "workers": 2, "batch": 0.0001} | run,
        }
    )


class Ended(Exception):
    pass


class Raised(Exception):
    """Ray's wrapper of what a task raised."""

    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Cluster:
    """What the engine calls of Ray, in this process and one call at a time."""

    exceptions = SimpleNamespace(RayError=Ended, RayTaskError=Raised)

    def __init__(self, **resources):
        self.resources, self.actors, self.waiting, self.most = resources, 0, [], 0

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return self.resources

    def remote(self, kind):
        def begin(*arguments):
            self.actors += 1
            return Handle(self, kind(*arguments))

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=begin))

    def wait(self, calls, **_):
        for actor in {call.actor for call in calls}:
            self.most = max(self.most, sum(call.actor is actor for call in calls))
        return [calls[0]], calls[1:]

    def get(self, call):
        return call.actor.answer(call)

    def kill(self, actor):
        actor.alive = False


@dataclass(eq=False)
class Call:
    actor: Handle
    method: str
    arguments: tuple


class Handle:
    def __init__(self, cluster, inside):
        self.inside, self.alive = inside, True
        for method in ("arrive", "start", "work"):
            setattr(self, method, SimpleNamespace(remote=lambda *arguments, m=method: Call(self, m, arguments)))

    def answer(self, call):
        assert self.alive, "asked an actor that is gone"
        try:
            return getattr(self.inside, call.method)(*call.arguments)
        except Ended:
            raise
        except Exception as error:
            raise Raised(error) from error


class Double:
    """An encoder whose process ends at the text `poison`."""

    def __init__(self, *_):
        pass

    def arrive(self):
        return "node"

    def start(self):
        pass

    def work(self, work):
        if any(job.text == "poison" for job in work):
            raise Ended("the process ended\nfor reasons")
        row = np.array([[0, 1]], np.float32)
        entries = {job.content: Entry(np.full((1, 2), len(job.text), np.float32), row) for job in work}
        return [entries], Stats(clips=len(work))  # of the one stream that is asked for


def pretended(monkeypatch, cluster, texts, actor=Double, **run):
    """(stats, contents that are missing, clips reported) of a run on the pretended cluster."""
    monkeypatch.setattr(ray_cluster, "load", lambda *_: cluster)
    monkeypatch.setattr(ray_engine, "Actor", actor)
    params, clips = settings(**{"engine": "ray", "workers": 3} | run), []
    work = [Job(f"clip{i}", f"c{i}", text) for i, text in enumerate(texts)]
    with ClipCache("extract", {"family": "double"}) as cache:
        stats = compute(
            Task(
                params.stream("text"),
                Extractor(cache.identity, len, len),
                Reader(None, "text", None),
                work,
                cache,
            ),
            params.run,
            [],
            clips.append,
        )
        return stats, cache.missing(job.content for job in work), sum(clips)


def test_a_clip_that_ends_its_actors_costs_that_clip(monkeypatch):
    cluster = Cluster(CPU=8)
    stats, missing, clips = pretended(monkeypatch, cluster, ["fine"] * 50 + ["poison"] + ["fine"] * 50 + ["poison"])
    assert set(stats.failures) == missing == {"c50", "c101"}
    assert "two Ray actors ended" in stats.failures["c50"]
    assert stats.clips == clips == 102
    assert cluster.actors == 3 + 2 + 2
    assert cluster.most == ray_engine.DEPTH


def test_one_actor_per_gpu(monkeypatch):
    cluster = Cluster(CPU=8, GPU=2.0)
    assert pretended(monkeypatch, cluster, ["a"] * 9, device="auto")[1] == set()
    assert cluster.actors == 2


def test_an_error_the_user_can_mend_stops_the_run(monkeypatch):
    class Bare(Double):
        def start(self):
            raise WeightsError("no weights on node b")

    with pytest.raises(WeightsError, match="no weights on node b"):
        pretended(monkeypatch, Cluster(CPU=8), ["a"], Bare)


def test_actors_that_never_start_stop_the_run(monkeypatch):
    class Stillborn(Double):
        def start(self):
            raise Ended("no")

    cluster = Cluster(CPU=8)
    with pytest.raises(DeviceError, match="while starting"):
        pretended(monkeypatch, cluster, ["a"], Stillborn)
    assert cluster.actors == 3 * ray_actors.STARTS


def test_a_cluster_without_room_is_a_line(monkeypatch):
    cluster = Cluster(CPU=0)
    cluster.wait = lambda calls, **_: ([], calls)
    with pytest.raises(DeviceError, match="no Ray node had room"):
        pretended(monkeypatch, cluster, ["a"])


def test_a_network_that_loads_longer_than_room_is_waited_for_is_no_lack_of_room(monkeypatch):
    class Slow(Cluster):
        silent = 0

        def wait(self, calls, **options):
            if self.silent < 3 and calls[0].method == "start":
                self.silent += 1
                return [], calls
            return super().wait(calls, **options)

    cluster = Slow(CPU=8)
    assert pretended(monkeypatch, cluster, ["a"] * 9)[1] == set()
    assert cluster.silent == 3 and cluster.actors == 3


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_the_cluster_lacks_is_a_line(monkeypatch, device):
    with pytest.raises(DeviceError, match="run.device"):
        pretended(monkeypatch, Cluster(CPU=8), ["a"], device=device)


def test_an_actor_on_another_installation_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an actor changes its folder; this one is in the test's own process
    monkeypatch.setattr(registry, "build", lambda *_: SimpleNamespace(identity={"family": "double"}))
    stream = settings().stream("text")
    made = ray_engine.Actor(stream, Reader(None, "text", None), settings().run, str(tmp_path), "another identity", "cpu")
    with pytest.raises(DeviceError, match="would compute other features"):
        made.start()
    away = ray_engine.Actor(stream, Reader(None, "text", None), settings().run, str(tmp_path / "away"), "", "cpu")
    with pytest.raises(DeviceError, match="does not see"):
        away.start()


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParamsError, match="pip install -r requirements-ray.txt"):
        ray_cluster.load()


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "127.0.0.1:closed", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_a_line(address):
    with pytest.raises(DeviceError, match="run.ray_address") as caught, ray_cluster.connect(Closed, address):
        pass
    assert "\n" not in str(caught.value)


def test_an_address_where_nobody_answers_is_a_line():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(DeviceError, match="nothing answers"), ray_cluster.connect(Closed, address):
            pass


def test_no_cluster_to_join_is_a_line():
    with pytest.raises(DeviceError, match="no Ray cluster .could not find a running instance.") as caught:
        with ray_cluster.connect(Closed, "auto"):
            pass
    assert "\n" not in str(caught.value)


class Closed(Cluster):
    """A library that is connected to nothing."""

    @staticmethod
    def is_initialized():
        return False

    @staticmethod
    def init(*_, **__):
        raise ConnectionError("could not find\n a running instance")


NODES = {"gpu": {"CPU": 16.0, "GPU": 1.0}, "small": {"CPU": 1.0}, "large": {"CPU": 8.0}, "gone": {"CPU": 8.0}, "none": {}}


@pytest.mark.parametrize(
    ("nodes", "workers", "places"),
    [
        (["gpu", "small", "large", "gone", "none"], 3, ["small", "large", "large", "large"]),
        (["gpu", "none"], 2, ["gpu", "gpu"]),
        (["small"], 0, ["small"]),
    ],
)
def test_decoding_goes_to_processors_and_leaves_gpus_to_encoders(nodes, workers, places):
    found = [{"NodeID": name, "Alive": name != "gone", "Resources": NODES[name]} for name in nodes]
    assert ray_cluster.processors(SimpleNamespace(nodes=lambda: found), settings(workers=workers).run) == places


def test_a_cluster_without_processors_is_a_line():
    with pytest.raises(DeviceError, match="no node of the Ray cluster has a processor"):
        ray_cluster.processors(SimpleNamespace(nodes=list), settings().run)

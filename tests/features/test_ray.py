"""Extraction on a local two-node Ray cluster: the bytes of the local engine, whatever happens to an actor."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from pipeline import params as parameters
from pipeline.data import manifest
from pipeline.errors import DeviceError, ParamsError, WeightsError
from pipeline.features import extract, ray_cluster, ray_crew, ray_engine, registry
from pipeline.features.cache import ClipCache
from pipeline.features.devices import compute
from pipeline.features.engine import Stats
from pipeline.features.reader import Job, Reader, jobs
from pipeline.features.store import Entry

CLIPS = 48


def settings(**run) -> parameters.Params:
    tiny = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "vocab_size": 512, "max_position_embeddings": 64}
    # One clip per batch: the bytes do not hang on which clips meet in a batch.
    return parameters.parse({
        "recipe": "test", "corpus": {"name": "test", "root": "."}, "fusion": {"name": "gated"},
        "streams": {"text": {"modality": "text", "source": "data/manifest.parquet", "encoder": "text",
                             "weights": "random:0", "architecture": tiny}},
        "run": {"device": "cpu", "workers": 2, "batch": 0.0001} | run,
    })


def corpus() -> pl.DataFrame:
    """Sentences of 1 to 12 words; every tenth clip has none."""
    words = "the birds sang loudly while nobody listened to them at all".split()
    rng = np.random.default_rng(0)
    rows = [{"id": f"clip{i:02d}", "corpus": "test", "emotion": "joy", "content": f"{i:032x}",
             "text": None if i % 10 == 9 else f"{i} " + " ".join(rng.choice(words, i % 12 + 1))} for i in range(CLIPS)]
    table = manifest.frame(rows)
    manifest.write(table, "data/manifest.parquet")
    return table


@pytest.fixture(scope="module")
def cluster():
    """Address of a cluster of two nodes with one processor each."""
    ray_cluster.load()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made.address
    made.shutdown()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_same_store_as_the_local_engine_committed_here(cluster, here, monkeypatch):
    corpus()
    local = extract.extract(settings(), "text", out="local.h5").read_bytes()
    committed: list[str] = []
    put = ClipCache.put

    def watched(self, entries):
        committed.extend(entries)
        put(self, entries)

    monkeypatch.setenv("AFFECTORY_CACHE", str(here / "other"))
    monkeypatch.setattr(ClipCache, "put", watched)
    assert extract.extract(settings(engine="ray", ray_address=cluster), "text", out="ray.h5").read_bytes() == local
    assert len(set(committed)) == len(committed) == CLIPS - CLIPS // 10 + 1  # clips without text are one content

    # The engine is no part of the identity: nothing is computed again, and no cluster is asked.
    again = settings(engine="ray", ray_address="nowhere:1")
    assert extract.extract(again, "text", out="again.h5").read_bytes() == local


@pytest.mark.unstable
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_actor_killed_at_work_is_replaced_and_nothing_is_lost(cluster, here, monkeypatch, caplog):
    table, params = corpus(), settings(engine="ray", ray_address=cluster)
    stream = params.stream("text")
    extractor = registry.build(stream)
    work = list({job.content: job for job in jobs(table, stream)}.values())
    crews: list[ray_crew.Crew] = []
    begin = ray_crew.Crew.__init__

    def seen(self, *arguments):
        begin(self, *arguments)
        crews.append(self)

    def advance(clips: int) -> None:
        """At the first result: one actor stands still, gets its next clips, and is killed with them."""
        done.append(clips)
        if len(done) == 1:
            ray = sys.modules["ray"]
            actor = next(place.actor for place in crews[0].places if place.ready)
            pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(2.0, os.kill, (pid, signal.SIGKILL)).start()

    done: list[int] = []
    monkeypatch.setattr(ray_crew.Crew, "__init__", seen)
    monkeypatch.setattr(ray_engine, "CHUNK", 2)
    with ClipCache("extract", extractor.identity) as cache:
        stats = compute(stream, extractor, Reader(extractor.prepare, "text", None), work, cache, params.run, [], advance)
        assert not cache.missing(job.content for job in work)
    assert "a Ray actor ended" in caplog.text
    assert stats.failures == {} and stats.clips == sum(done) == len(work)

    # Packed from what the two actors returned, it is the store of the local engine.
    packed = extract.extract(settings(), "text", out="packed.h5").read_bytes()
    monkeypatch.setenv("AFFECTORY_CACHE", str(here / "other"))
    assert extract.extract(settings(), "text", out="local.h5").read_bytes() == packed


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
        for method in ("start", "encode"):
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

    def start(self):
        pass

    def encode(self, work):
        if any(job.text == "poison" for job in work):
            raise Ended("the process ended\nfor reasons")
        row = np.array([[0, 1]], np.float32)
        return {job.content: Entry(np.full((1, 2), len(job.text), np.float32), row) for job in work}, Stats(clips=len(work))


def pretended(monkeypatch, cluster, texts, encoder=Double, **run):
    """(stats, contents that are missing, clips reported) of a run on the pretended cluster."""
    monkeypatch.setattr(ray_cluster, "load", lambda: cluster)
    monkeypatch.setattr(ray_engine, "Encoder", encoder)
    params, clips = settings(**{"engine": "ray", "workers": 3} | run), []
    work = [Job(f"clip{i}", f"c{i}", text) for i, text in enumerate(texts)]
    with ClipCache("extract", {"family": "double"}) as cache:
        stats = compute(params.stream("text"), SimpleNamespace(identity=cache.identity), Reader(None, "text", None), work,
                        cache, params.run, [], clips.append)
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
    assert cluster.actors == 3 * ray_crew.STARTS


def test_a_cluster_without_room_is_a_line(monkeypatch):
    cluster = Cluster(CPU=0)
    cluster.wait = lambda calls, **_: ([], calls)
    with pytest.raises(DeviceError, match="no Ray node had room"):
        pretended(monkeypatch, cluster, ["a"])


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_the_cluster_lacks_is_a_line(monkeypatch, device):
    with pytest.raises(DeviceError, match="run.device"):
        pretended(monkeypatch, Cluster(CPU=8), ["a"], device=device)


def test_an_actor_on_another_installation_refuses(here):
    stream = settings().stream("text")
    made = ray_engine.Encoder(stream, Reader(None, "text", None), settings().run, str(here), "another identity", "cpu")
    with pytest.raises(DeviceError, match="would compute other features"):
        made.start()
    away = ray_engine.Encoder(stream, Reader(None, "text", None), settings().run, str(here / "away"), "", "cpu")
    with pytest.raises(DeviceError, match="does not see"):
        away.start()


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParamsError, match="pip install -r requirements-ray.txt"):
        ray_cluster.load()


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "127.0.0.1:closed", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_a_line(address):
    with pytest.raises(DeviceError, match="run.ray_address") as caught, ray_cluster.connected(Closed, address):
        pass
    assert "\n" not in str(caught.value)


def test_an_address_where_nobody_answers_is_a_line():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(DeviceError, match="nothing answers"), ray_cluster.connected(Closed, address):
            pass


def test_no_cluster_to_join_is_a_line():
    with pytest.raises(DeviceError, match="no Ray cluster .could not find a running instance.") as caught:
        with ray_cluster.connected(Closed, "auto"):
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

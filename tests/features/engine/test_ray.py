"""Decoding, extraction, training on a local two-node Ray cluster: the bytes of this machine, whatever happens to an actor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest
import soundfile

from pipeline import params as parameters
from pipeline import ray_cluster
from pipeline.data import examine, media, outcomes
from pipeline.data.faces import stage as faces
from pipeline.errors import DeviceError
from pipeline.features import extract, transcribe
from pipeline.features.encoders import registry
from pipeline.features.engine import ray_engine
from pipeline.features.engine.devices import compute
from pipeline.features.engine.reader import Reader, list_jobs
from pipeline.features.engine.task import Task
from pipeline.storage import media_store, tables
from pipeline.storage.clip_cache import ClipCache, digest
from pipeline.training import stage
from pipeline.workers import ray_actors

ROOT = Path(__file__).resolve().parents[3]
CLIPS = 48
WORDS = "the birds sang loudly while nobody listened to them at all".split()


def settings(encoder: str = "glove", **run) -> parameters.Params:
    """Word vectors start in a second; `text` is a small network."""
    tiny = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 512,
        "max_position_embeddings": 64,
    }
    weights = {"weights": "random:0", "architecture": tiny} if encoder == "text" else {"weights": "file:words.txt"}
    # One clip per batch: the bytes do not hang on which clips meet in a batch.
    return parameters.parse(
        {
            "recipe": "test",
            "corpus": {"name": "test", "root": "."},
            "fusion": {"name": "gated"},
            "streams": {"text": {"modality": "text", "source": "data/manifest.parquet", "encoder": encoder, **weights}},
            "run": {"device": "cpu", "workers": 2, "batch": 0.0001} | run,
        }
    )


def corpus() -> pl.DataFrame:
    """Sentences of 1 to 12 words; every tenth clip has none. And vectors of those words."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"clip{i:02d}",
            "corpus": "test",
            "emotion": "joy",
            "content": f"{i:032x}",
            "text": None if i % 10 == 9 else f"{i} " + " ".join(rng.choice(WORDS, i % 12 + 1)),
        }
        for i in range(CLIPS)
    ]
    table = tables.frame(rows)
    tables.write(table, "data/manifest.parquet")
    with open("words.txt", "w") as file:
        file.writelines(" ".join([word, *(f"{value:.4f}" for value in rng.normal(size=8))]) + "\n" for word in WORDS)
    return table


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a cluster of two nodes with one processor each."""
    ray_cluster.load()
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # What the nodes inherit: their actors leave the user's cache alone as well.
        patch.setenv("AFFECTORY_CACHE", str(tmp_path_factory.mktemp("nodes")))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
    yield made.address
    made.shutdown()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def committed(monkeypatch):
    """Contents that this process committed to the cache."""
    contents: list[str] = []
    put = ClipCache.put

    def watched(self, entries):
        contents.extend(entries)
        put(self, entries)

    monkeypatch.setattr(ClipCache, "put", watched)
    return contents


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_network_on_the_cluster_gives_the_store_of_the_local_engine(cluster, here, monkeypatch, committed):
    corpus()
    local = extract.extract(settings("text", workers=0), "text", out="local.h5").read_bytes()
    committed.clear()
    monkeypatch.setenv("AFFECTORY_CACHE", str(here / "other"))
    there = settings("text", workers=0, engine="ray", ray_address=cluster)
    assert extract.extract(there, "text", out="ray.h5").read_bytes() == local
    assert len(set(committed)) == len(committed) == CLIPS - CLIPS // 10 + 1  # clips without text are one content

    # The engine is no part of the identity: nothing is computed again, and no cluster is asked.
    again = settings("text", engine="ray", ray_address="nowhere:1")
    assert extract.extract(again, "text", out="again.h5").read_bytes() == local


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_actor_killed_at_work_is_replaced_and_nothing_is_lost(cluster, here, monkeypatch, caplog, committed):
    table, params = corpus(), settings(engine="ray", ray_address=cluster)
    stream = params.stream("text")
    extractor = registry.build(stream)
    work = list({job.content: job for job in list_jobs(table, stream)}.values())
    pools: list[ray_actors.ActorPool] = []
    begin = ray_actors.ActorPool.__init__

    def seen(self, *arguments):
        begin(self, *arguments)
        pools.append(self)

    def advance(clips: int) -> None:
        """At the first result: one actor stands still, gets its next clips, and is killed with them."""
        done.append(clips)
        if len(done) == 1:
            ray = sys.modules["ray"]
            actor = next(place.actor for place in pools[0].places if place.ready)
            pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()

    done: list[int] = []
    monkeypatch.setattr(ray_actors.ActorPool, "__init__", seen)
    monkeypatch.setattr(ray_engine, "CHUNK", 2)
    with ClipCache("extract", extractor.identity) as cache:
        stats = compute(Task(stream, extractor, Reader(extractor.prepare, "text", None), work, cache), params.run, [], advance)
        assert not cache.missing(job.content for job in work)
    assert "a Ray actor ended" in caplog.text
    assert stats.failures == {} and stats.clips == sum(done) == len(work) == len(committed) == len(set(committed))

    # Packed from what the actors returned, it is the store of the local engine.
    packed = extract.extract(settings(workers=0), "text", out="packed.h5").read_bytes()
    monkeypatch.setenv("AFFECTORY_CACHE", str(here / "other"))
    assert extract.extract(settings(workers=0), "text", out="local.h5").read_bytes() == packed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_runs_on_the_cluster_are_those_of_this_machine(cluster, fabricate, monkeypatch, tmp_path):
    corpus = fabricate(clips=30)
    training = {"epochs": 2, "seeds": 2, "linear": {}}

    def train_at(name: str, **run) -> dict[str, bytes]:
        params = corpus.params(training=training, run=run)
        out = corpus.path(name)
        stage.train(params, corpus.index(params), **corpus.files, out=out)
        return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    here = train_at("here")
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "other"))
    assert train_at("there", engine="ray", ray_address=cluster) == here
    # What is in the cache asks no cluster.
    assert train_at("again", engine="ray", ray_address="nowhere:1") == here


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A workspace with the manifest of five films with sound and one damaged film."""
    folder = tmp_path_factory.mktemp("films")
    shade = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3)
    for i in range(5):
        with av.open(str(folder / f"{i}.mp4"), "w") as film:
            stream = film.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for k in range(8 + i):
                picture = ((shade + 20 * i + k) % 256).astype(np.uint8)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            film.mux(stream.encode(None))
        soundfile.write(folder / f"{i}.wav", 0.1 * np.sin(np.arange(16000) * 0.05 * (i + 1)), 16000)
    (folder / "5.mp4").write_bytes(b"no film at all" * 99)
    rows = [{"id": f"c/{i}", "video": f"{i}.mp4", "audio": f"{i}.wav" if i < 5 else None, "content": f"{i}"} for i in range(6)]
    tables.write(tables.frame(rows), folder / "data/manifest.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_decoding_on_the_cluster_gives_the_files_of_this_machine(cluster, films, monkeypatch, tmp_path, committed):
    monkeypatch.chdir(films)
    stream = {"modality": "face", "source": "x", "encoder": "mae", "weights": "random:0"}

    def decode_at(name: str, **run) -> dict[str, bytes]:
        params = parameters.parse(
            {
                "recipe": "test",
                "corpus": {"name": "folder", "root": "."},
                "fusion": {"name": "concat"},
                "streams": {"face": stream},
                "faces": {"detector": "whole", "size": 32},
                "quarantine": {"max_rate": 0.5},
                "run": {"device": "cpu", "workers": 0} | run,
            }
        )
        out = tmp_path / name
        frames = media.extract_frames(params, out=out / "frames.h5")
        media.extract_audio(params, out=out / "audio.h5")
        faces.extract_faces(params, frames=frames, out=out / "faces.h5")
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}

    here = decode_at("here")
    assert [row["reason"] for row in tables.read(tmp_path / "here/frames.quarantine.parquet").to_dicts()] == ["unreadable"]
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "other"))
    committed.clear()
    assert decode_at("there", engine="ray", ray_address=cluster) == here
    assert sorted(committed) == sorted([str(i) for i in range(5)] * 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_files_examined_on_the_cluster_are_as_this_machine_finds_them(cluster, films, monkeypatch, tmp_path):
    monkeypatch.chdir(films)
    paths = sorted(str(path) for path in films.iterdir() if path.suffix in (".mp4", ".wav"))

    def examine_at(**run) -> dict[str, str]:
        return {path: fact.dump() for path, fact in examine.examine_media(paths, settings(**run)).items()}

    here = examine_at(workers=0)
    reasons = {path: json.loads(said)["reason"] for path, said in here.items()}
    assert [path for path in paths if reasons[path]] == [str(films / "5.mp4")] and reasons[str(films / "5.mp4")] == "unreadable"
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "other"))
    assert examine_at(engine="ray", ray_address=cluster) == here
    # What was found there is remembered here, and no cluster is asked.
    assert examine_at(engine="ray", ray_address="nowhere:1") == here


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_speech_recognised_on_the_cluster_gives_the_table_of_this_machine(cluster, here, real, monkeypatch, committed):
    rows = [{"id": f"r/{i}", "content": f"c{i}", "text": None, "audio": "x"} for i in (0, 1)]
    tables.write(tables.frame(rows), "data/manifest.parquet")
    said = [(real / f"ravdess/audio/Actor_03/03-01-05-01-0{i}-01-03.flac") for i in (1, 2)]
    sounds = {f"c{i}": media_store.join_files([path.read_bytes()], np.array([[0, 4]], np.float32)) for i, path in enumerate(said)}
    with ClipCache("audio", {"rate": 16000}) as cache:
        cache.put(sounds)
        media_store.pack(Path("data/audio.h5"), rows, "audio", cache, {"rate": 16000}, {})
    monkeypatch.setattr(transcribe, "BATCH", 1)  # a batch for each node

    def hear_at(name: str, **run) -> bytes:
        params = settings(**run).model_dump() | {"asr": {"weights": f"local:{real / 'weights/whisper-tiny.en'}"}}
        return transcribe.transcribe(parameters.parse(params), out=f"{name}.parquet").read_bytes()

    local = hear_at("local", workers=0)
    assert ["kids" in text.lower() for text in pl.read_parquet("local.parquet")["text"]] == [True, False]
    monkeypatch.setenv("AFFECTORY_CACHE", str(here / "other"))
    committed.clear()
    assert hear_at("ray", engine="ray", ray_address=cluster) == local
    assert sorted(committed) == ["c0", "c1"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("function", "bad", "workers", "reason", "detail"),
    [
        (signal.raise_signal, signal.SIGKILL, 1, "crash", "worker process ended"),
        (signal.raise_signal, signal.SIGKILL, 0, "crash", "two Ray actors ended"),
        (time.sleep, 1000, 1, "timeout", "no result after 2 s"),
        (time.sleep, "long", 1, "error", "TypeError"),
    ],
)
def test_a_clip_that_fails_on_a_node_costs_that_clip(cluster, here, function, bad, workers, reason, detail):
    options = settings(engine="ray", ray_address=cluster, workers=workers, timeout=2).run
    tasks = [(f"clip{i}", bad if i == 4 else 0) for i in range(9)]
    found = {outcome.key: outcome for outcome in outcomes.work(tasks, function, options, dict)}
    assert sorted(found) == [content for content, _ in tasks]
    assert [content for content, outcome in found.items() if not outcome.ok] == ["clip4"]
    assert found["clip4"].reason == reason and detail in found["clip4"].detail


def test_a_node_that_would_decode_otherwise_is_refused(here):
    def start(folder: Path, identity: dict) -> None:
        outcomes.Actor(time.sleep, settings().run, str(folder), lambda: {"av": "1"}, digest(identity), ()).start()

    start(here, {"av": "1"})
    with pytest.raises(DeviceError, match="would decode otherwise"):
        start(here, {"av": "2"})
    with pytest.raises(DeviceError, match="does not see"):
        start(here / "elsewhere", {"av": "1"})


LISTENING = """
import psutil
from pipeline import ray_cluster

ray = ray_cluster.load(None)
with ray_cluster.connect(ray, None):
    @ray.remote
    def work():
        return 1

    assert ray.get(work.remote()) == 1
    mine = {one.pid for one in psutil.Process().children(recursive=True)} | {psutil.Process().pid}
    for one in psutil.net_connections("tcp"):
        if one.status == "LISTEN" and one.pid in mine:
            print(one.laddr.ip)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_started_here_is_heard_here_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    places = done.stdout.split()
    assert len(places) >= 5 and {place.removeprefix("::ffff:") for place in places} == {"127.0.0.1"}

"""Streams that read one network: one pass for all, and the bytes of each as if it had been alone."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import params as parameters
from pipeline.errors import UserError
from pipeline.features.encoders import registry
from pipeline.features.encoders.readouts import prepare_together
from pipeline.features.encoders.text import language
from pipeline.features.engine import ray_engine
from pipeline.features.engine.devices import compute
from pipeline.features.engine.reader import Reader
from pipeline.features.engine.task import Other, Task
from pipeline.features.extract import extract
from pipeline.features.plan import plan_stream
from pipeline.storage import flac, media_store, tables
from pipeline.storage.clip_cache import ClipCache, digest
from pipeline.storage.feature_store import Store
from tests.features.encoders.small import BERT, SPEECH, VIT, WHISPER

RATE = 16000
WORDS = "the birds sang loudly while nobody listened to them at all".split()
GPT = {"vocab_size": 512, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
#: Encoder → what its streams have in common, and in what they differ.
FAMILIES: dict[str, tuple[dict, list[dict]]] = {
    "hubert": (
        {"architecture": SPEECH},
        [{}, {"layer": 2, "pooling": "mean"}, {"layer": "all", "rate": 5}, {"layer": "last4", "pooling": "statistics"}],
    ),
    "whisper": ({"architecture": WHISPER}, [{"pooling": "mean"}, {"layer": [0, 4]}, {"layer": {"sum": [1, 3]}, "rate": 2}]),
    "emotion2vec": (
        {"architecture": {"width": 32, "heads": 4, "inner": 64, "blocks": 3, "front": 16, "position_groups": 4}},
        [{}, {"layer": 1, "pooling": "max"}],
    ),
    "text": ({"architecture": BERT}, [{"pooling": "mean"}, {}, {"layer": 2, "pooling": "first"}, {"layer": "all"}]),
    "dialogue": (
        {"architecture": GPT, "options": {"turns": 2}},
        [{"layer": 1, "pooling": "mean"}, {"layer": 2, "pooling": "last"}, {"layer": 2}],
    ),
    "vit": ({"architecture": VIT, "options": {"readout": "mean"}}, [{}, {"layer": 1, "pooling": "mean"}]),
    "mae": ({"architecture": VIT}, [{"layer": 1}, {"rate": 2}]),
    "clip": ({"architecture": VIT | {"projection_dim": 16}, "options": {"readout": "cls"}}, [{}, {"layer": 1}]),
    "videomae": ({"architecture": VIT | {"num_frames": 4}}, [{}, {"layer": 1}]),
    "logmel": ({"weights": "none"}, [{"pooling": "mean"}, {"rate": 10}]),
}
MODALITIES = {"text": "text", "dialogue": "text", "vit": "video", "mae": "video", "clip": "video", "videomae": "video"}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Nine clips of words, sound and frames; the third has none of them."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    rows, sounds, films = [], {}, {}
    for i in range(9):
        there, seconds = i != 2, 0.4 + 0.1 * i
        text = " ".join(WORDS[: i + 1]) if there else None
        rows.append(
            {
                "id": f"clip{i}",
                "content": f"c{i}",
                **dict.fromkeys(("video", "audio"), "x" if there else None),
                "text": text,
                "duration": seconds,
            }
            | {"dialogue": "d", "turn": i, "speaker": "AB"[i % 2]}
        )
        wave, frames = rng.normal(size=round(seconds * RATE)).astype(np.float32) / 4, []
        for _ in range(1 + i % 3):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG")
            frames.append(buffer.getvalue())
        edges = np.arange(len(frames) + 1) / 4
        if there:
            sounds[f"c{i}"] = media_store.join_files([flac.encode(wave, RATE)], np.array([[0, seconds]]))
            films[f"c{i}"] = media_store.join_files(frames, np.stack([edges[:-1], edges[1:]], 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTORY_CACHE", str(folder / "cache"))
        for kind, entries in (("audio", sounds), ("video", films)):
            with ClipCache(kind, {"rate": RATE}) as cache:
                cache.put(entries)
                media_store.pack(folder / f"{kind}.h5", rows, kind, cache, {"rate": RATE}, {})
    tables.write(tables.frame(rows), folder / "manifest.parquet")
    return folder


def settings(family: str, media: Path, chosen: dict[str, dict], **common) -> parameters.Params:
    modality = MODALITIES.get(family, "audio")
    source = {"text": "manifest.parquet", "video": "video.h5", "audio": "audio.h5"}[modality]
    base = {"modality": modality, "source": str(media / source), "encoder": family, "weights": "random:0"} | common
    return parameters.parse(
        {
            "recipe": "test",
            "corpus": {"name": "test", "root": "."},
            "streams": {name: base | own for name, own in chosen.items()},
            "fusion": {"name": "concat"},
            "quarantine": {"max_rate": 0.5},
            # Some clips to a batch, so that it matters which meet in one.
            "run": {"workers": 0, "device": "cpu", "batch": 0.03 if modality == "audio" else 0.1},
        }
    )


def make(params, media: Path, name: str, folder: str) -> bytes:
    return extract(params, name, manifest=media / "manifest.parquet", out=f"{folder}/{name}.h5").read_bytes()


@pytest.fixture
def alone(media, tmp_path, monkeypatch):
    """Stores of streams that know of no other, each from an empty cache."""

    def each(family: str, chosen: dict[str, dict], **common) -> dict[str, bytes]:
        result = {}
        for name, own in chosen.items():
            monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "alone" / name))
            result[name] = make(settings(family, media, {name: own}, **common), media, name, "alone")
        return result

    monkeypatch.chdir(tmp_path)
    return each


@pytest.fixture
def loads(monkeypatch):
    """The encoders that were loaded, in order."""
    seen: list[object] = []
    build = registry.build

    def watched(stream, view=None):
        found = build(stream, view)

        def load(**place):
            seen.append(place)
            return found.load(**place)

        return replace(found, load=load)

    monkeypatch.setattr(registry, "build", watched)
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_gives_each_stream_the_bytes_it_has_alone(family, media, alone, loads, tmp_path, monkeypatch):
    common, differing = FAMILIES[family]
    chosen = {f"s{i}": own for i, own in enumerate(differing)}
    expected = alone(family, chosen, **common)
    params = settings(family, media, chosen, **common)
    for k, order in enumerate([tuple(chosen), tuple(reversed(chosen))]):
        monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / f"cache{k}"))
        loads.clear()
        for name in order:
            assert make(params, media, name, f"out{k}") == expected[name], (order, name)
        assert len(loads) == 1, "the second finds everything in the cache"
        assert sorted(path.name for path in Path(f"out{k}").glob("*.h5")) == sorted(f"{name}.h5" for name in chosen)


def test_nothing_is_encoded_for_a_stream_that_is_not_there(media, alone, tmp_path, monkeypatch):
    params = settings("hubert", media, {"a": {}}, architecture=SPEECH)
    monkeypatch.chdir(tmp_path)
    make(params, media, "a", "out")
    assert len(list((tmp_path / "cache/extract").iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "random:1"},
        {"dtype": "bfloat16"},
        {"threads": 2},
        {"options": {"normalise": False}},
        {"architecture": SPEECH | {"num_hidden_layers": 5}},
        {"encoder": "whisper", "architecture": WHISPER},
    ],
)
def test_another_network_is_another_pass(other, media, tmp_path, monkeypatch, loads):
    monkeypatch.chdir(tmp_path)
    params = settings("hubert", media, {"a": {}, "b": other}, **({} if "architecture" in other else {"architecture": SPEECH}))
    if "architecture" in other:
        params = settings("hubert", media, {"a": {"architecture": SPEECH}, "b": other})
    for name in "ab":
        make(params, media, name, "out")
    assert len(loads) == 2


def test_a_readout_that_changes_costs_its_own_pass_alone(media, alone, tmp_path, monkeypatch, loads):
    both = {"a": {"layer": 1}, "b": {"layer": 2}}
    expected = alone("hubert", {"a": {"layer": 3}}, architecture=SPEECH)
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "cache"))
    params = settings("hubert", media, both, architecture=SPEECH)
    for name in both:
        make(params, media, name, "out")
    loads.clear()
    params = settings("hubert", media, both | {"a": {"layer": 3}}, architecture=SPEECH)
    assert make(params, media, "a", "out") == expected["a"]
    make(params, media, "b", "out")
    assert loads == [{"device": "cpu"}]


def test_clips_that_one_of_them_has_are_left_to_each(media, alone, tmp_path, monkeypatch, loads):
    """Which clips meet in a batch decides last bits: where two lack other clips, neither is to be another for it."""
    both = {"a": {}, "b": {"layer": 1}}
    expected = alone("text", both, architecture=BERT)
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "cache"))
    params = settings("text", media, both, architecture=BERT)
    (part,) = plan_stream("b", params.stream("b"), media / "manifest.parquet").parts
    make(params, media, "b", "out")
    with ClipCache("extract", part.identity) as cache:
        kept = {
            job.content: cache.get(job.content) for job in plan_stream("b", params.stream("b"), media / "manifest.parquet").jobs
        }
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "another"))
    with ClipCache("extract", part.identity) as cache:
        cache.put(dict(list(kept.items())[:4]))
    loads.clear()
    assert make(params, media, "a", "out") == expected["a"]
    assert loads == [{"device": "cpu"}]


def test_what_fails_in_one_alone_fails_there(media, tmp_path, monkeypatch):
    """Reasons of clips are each stream's own, whichever of them ran the pass."""
    both = {"a": {}, "b": {"layer": 1}}
    monkeypatch.chdir(tmp_path)
    encode = language.LanguageEncoder.encode_layers

    def spoilt(self, batch):
        """Layer 1 of a clip of four words is not finite; a batch in which there are six is refused."""
        if any(len(item.inputs["ids"]) == 8 for item in batch):
            raise RuntimeError("six words are refused")
        found = encode(self, batch)
        for layer, rows in zip(self.layers, found, strict=True):
            for item, one in zip(batch, rows, strict=True):
                if layer == 1 and len(item.inputs["ids"]) == 6:
                    one *= np.nan
        return found

    monkeypatch.setattr(language.LanguageEncoder, "encode_layers", spoilt)
    params = settings("text", media, both, architecture=BERT)
    reasons: dict[tuple[str, ...], dict[str, dict]] = {}
    for order in (*permutations(both), ("a",), ("b",)):
        monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / f"cache-{'-'.join(order)}"))
        for name in order:
            make(params if len(order) > 1 else settings("text", media, {name: both[name]}, architecture=BERT), media, name, "out")
            reasons.setdefault(order, {})[name] = Store(f"out/{name}.h5").attributes["failures"]
    assert reasons[("a", "b")] == reasons[("b", "a")] == reasons[("a",)] | reasons[("b",)]
    refused = {"clip5": "RuntimeError: six words are refused"}
    assert reasons[("a",)]["a"] == refused
    assert reasons[("b",)]["b"] == refused | {"clip3": "the encoder returned values that are not finite"}


def test_a_stream_with_a_mistake_spoils_no_other(media, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = settings("hubert", media, {"a": {}, "b": {"layer": 7}}, architecture=SPEECH)
    make(params, media, "a", "out")
    with pytest.raises(UserError, match="layer 7 is not there"):
        make(params, media, "b", "out")


def test_the_views_of_a_stream_load_it_once_and_are_shared(media, alone, loads, tmp_path, monkeypatch):
    chosen = {"a": {"views": ["speed:0.9", "speed:1.1"]}, "b": {"layer": 2, "views": ["speed:1.1"]}}
    expected = alone("hubert", chosen, architecture=SPEECH)
    assert len(loads) == 2
    for k, order in enumerate(permutations(chosen)):
        monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / f"cache{k}"))
        params = settings("hubert", media, chosen, architecture=SPEECH)
        loads.clear()
        for name in order:
            assert make(params, media, name, f"out{k}") == expected[name]
        # `b` has one view less: the stream with more loads the network again where it came second.
        assert len(loads) == (1 if order[0] == "a" else 2)


def test_an_actor_of_a_cluster_and_several_devices_give_all_of_a_pass(media, tmp_path, monkeypatch):
    both = {"a": {"pooling": "mean"}, "b": {"layer": 2}}
    params = settings("text", media, both, architecture=BERT)
    monkeypatch.chdir(tmp_path)
    plans = {name: plan_stream(name, params.stream(name), media / "manifest.parquet") for name in both}
    parts = {name: plan.parts[0] for name, plan in plans.items()}
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "one"))
    make(params, media, "a", "out")
    jobs, wanted = plans["a"].jobs, {}
    for name, part in parts.items():
        with ClipCache("extract", part.identity) as cache:
            wanted[name] = dict(zip((job.content for job in jobs), cache.iterate(job.content for job in jobs), strict=True))
    extractor, other = (parts[name].extractor for name in both)
    reader = Reader(None, "text", None)
    actor = ray_engine.Actor(
        params.stream("a"), reader, params.run, str(tmp_path), digest(extractor.identity), "cpu", None, [params.stream("b")]
    )
    actor.start()
    found, stats = actor.work(jobs)
    assert not stats.failures
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "two"))
    with ClipCache("extract", extractor.identity) as first, ClipCache("extract", other.identity) as second:
        together = replace(reader, prepare=prepare_together([extractor, other]))
        task = Task(params.stream("a"), extractor, together, jobs, first, None, [Other(params.stream("b"), other, second)])
        compute(task, params.run, ["cpu", "cpu"], lambda _: None)
        shared = [dict(zip(wanted["a"], cache.iterate(wanted["a"]), strict=True)) for cache in (first, second)]
    for entries in (found, shared):
        for name, each in zip(both, entries, strict=True):
            assert each.keys() == wanted[name].keys()
            for content, entry in each.items():
                assert (entry.status, entry.reason) == (wanted[name][content].status, wanted[name][content].reason)
                # Other clips meet in a batch.
                np.testing.assert_allclose(entry.values, wanted[name][content].values, atol=1e-5, rtol=0)
                np.testing.assert_array_equal(entry.times, wanted[name][content].times)

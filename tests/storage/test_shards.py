"""Stores in several files: cut by ids alone, one store to every reader, refused in a line when one of them is not right."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.features import index
from pipeline.storage import feature_store, inspect, seal, shards
from pipeline.storage.feature_store import Entry, Status, Store, View
from pipeline.storage.hdf5 import atomic_hdf5
from pipeline.storage.index import Index
from pipeline.storage.joined import Joined
from pipeline.training.data.dataset import Dataset

IDS = st.text(st.sampled_from("ab/09é\x01"), min_size=1, max_size=6)


@settings(max_examples=80, deadline=None)
@given(clips=st.dictionaries(IDS, st.integers(0, 9), min_size=2, max_size=30), limit=st.integers(1, 20), data=st.data())
def test_one_clip_more_changes_one_run_or_cuts_it(clips, limit, data):
    new = data.draw(st.sampled_from(sorted(clips)))
    before = {clip: size for clip, size in clips.items() if clip != new}

    def runs(of: dict[str, int]) -> list[tuple[str, ...]]:
        ids = sorted(of)
        found = shards.split(ids, [of[clip] for clip in ids], limit)
        assert [clip for run in found for clip in ids[run]] == ids
        assert all(sum(of[clip] for clip in ids[run]) <= limit or len(ids[run]) == 1 for run in found)
        return [tuple(ids[run]) for run in found]

    changed = [run for run in runs(before) if run not in runs(clips)]
    assert len(changed) <= 1
    added = {clip for run in runs(clips) if run not in runs(before) for clip in run}
    assert added == {*(changed[0] if changed else ()), new}


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5), data=st.data())
def test_rows_of_several_files_are_indexed_as_one_array(lengths, data):
    whole = np.arange(sum(lengths) * 6, dtype=np.float32).reshape(-1, 2, 3)
    joined = Joined(np.split(whole, np.cumsum(lengths)[:-1]))
    assert (joined.shape, joined.dtype, joined.nbytes, joined.ndim) == (whole.shape, whole.dtype, whole.nbytes, 3)
    edges = st.none() | st.integers(-7, 22)
    keys = [st.builds(slice, edges, edges, st.sampled_from([None, 1, 2, -1])), st.just(np.arange(len(whole)) % 2 == 0)]
    if len(whole):
        one = st.integers(-len(whole), len(whole) - 1)
        keys += [one, st.lists(one, max_size=6).map(lambda rows: np.array(rows, int))]
    key = data.draw(st.one_of(keys))
    np.testing.assert_array_equal(joined[key], whole[key])
    if not isinstance(key, int):
        np.testing.assert_array_equal(joined[key, 1], whole[key, 1])
    np.testing.assert_array_equal(np.asarray(joined), whole)
    for beyond in (len(whole), -len(whole) - 1, np.array([len(whole)])):
        with pytest.raises(IndexError):
            joined[beyond]


def write(
    path: Path, clips: dict[str, int], limit: float, *, kept: Path | None = None, spoil: str = "", made: list | None = None
):
    """A store with a view, of clips with so many rows; a clip without any failed."""
    ids = sorted(clips)

    def entry(clip: str, wide: float = 1.0) -> Entry:
        chance = np.random.default_rng([*clip.encode()])
        edges = np.arange(clips[clip] + 1, dtype=np.float32)
        values = wide * chance.normal(size=(clips[clip], 3)).astype(np.float32)
        return Entry(values, np.stack([edges[:-1], edges[1:]], 1), Status.OK if clips[clip] else Status.FAILED)

    def make(run: slice, where: Path) -> None:
        if made is not None:
            made.append(where.name)
        own = ids[run]
        if spoil in own:
            raise KeyboardInterrupt
        failures = {clip: f"{clip} is broken" for clip in own if not clips[clip]}
        view = View(
            [entry(clip, 2.0) for clip in own], [clips[clip] for clip in own], {"identity": {"view": 1}, "failures": failures}
        )
        attributes = {"stream": "audio", "modality": "audio", "failures": failures}
        if len(runs) > 1:
            attributes["made_of"] = where.stem
        rows = [clips[clip] for clip in own]
        feature_store.write(where, own, map(entry, own), rows=rows, shape=(3,), attributes=attributes, views={"speed:0.9": view})

    runs = shards.split(ids, [clips[clip] for clip in ids], limit)
    if len(runs) == 1:
        make(runs[0], path)
        shards.clear(path)
        return
    names = ["-".join(f"{clip.replace('/', '_')}.{clips[clip]}" for clip in ids[run]) for run in runs]
    shards.write(path, names, lambda i, where: make(runs[i], where), {"stream": "audio"})


CLIPS = {f"{corpus}/{i}": (i * 7) % 5 for corpus in ("meld", "ravdess") for i in range(8)}


def files(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in shards.folder_of(path).glob("*.h5")}


def assert_same(one, other) -> None:
    assert one.ids == other.ids and one.attributes == other.attributes
    assert (one.shape, one.dtype, len(one), one.position) == (other.shape, other.dtype, len(other), other.position)
    for name in ("offsets", "status", "times", "sums"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(np.asarray(one.values), np.asarray(other.values))
    for i in range(len(one)):
        for mine, theirs in zip(one.read(i), other.read(i), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("limit", [1, 3, 8, 20])
def test_it_is_the_store_of_one_file_value_for_value(limit, tmp_path):
    write(tmp_path / "one/audio.h5", CLIPS, 1e9)
    write(tmp_path / "many/audio.h5", CLIPS, limit)
    one, many = Store(tmp_path / "one/audio.h5"), Store(tmp_path / "many/audio.h5")
    assert not files(tmp_path / "one/audio.h5") and len(files(tmp_path / "many/audio.h5")) > 1
    assert_same(many, one)
    assert_same(many.views["speed:0.9"], one.views["speed:0.9"])
    for clip in ("meld/3", "ravdess/0"):
        np.testing.assert_array_equal(many[clip].values, one[clip].values)
        assert many[clip].status == one[clip].status
    low, high = many.offsets[3:5]
    assert not many.values[low:high].flags.owndata, "the rows of a clip are in the map"
    assert inspect.verify(tmp_path / "many/audio.h5") == len(CLIPS)
    assert "shards" in inspect.describe(tmp_path / "many/audio.h5")


def test_plain_h5py_opens_each_file_and_the_first_names_them(tmp_path):
    write(tmp_path / "audio.h5", CLIPS, 8)
    seen: list[str] = []
    with h5py.File(tmp_path / "audio.h5") as file:
        for name in sorted(file["shards"]):
            shard = file["shards"][name]
            seen += list(shard["ids"].asstr())
            assert shard["values"].shape == (shard["offsets"][-1], 3)
    assert seen == sorted(CLIPS)


@pytest.mark.parametrize("new", ["meld/35", "a", "zoo/1", "ravdess/7x"])
def test_one_clip_more_leaves_the_bytes_of_all_other_files(new, tmp_path):
    write(tmp_path / "audio.h5", CLIPS, 8)
    before, made = files(tmp_path / "audio.h5"), []
    stamps = {one.name: one.stat().st_mtime_ns for one in shards.folder_of(tmp_path / "audio.h5").glob("*.h5")}
    write(tmp_path / "audio.h5", CLIPS | {new: 2}, 8, made=made)
    after = files(tmp_path / "audio.h5")
    gone = set(before) - set(after)
    assert len(gone) <= 1 and set(after) - set(before) == set(made)
    for name in set(before) & set(after):
        assert before[name] == after[name]
        assert (shards.folder_of(tmp_path / "audio.h5") / name).stat().st_mtime_ns == stamps[name], "not written again"
    write(tmp_path / "fresh/audio.h5", CLIPS | {new: 2}, 8)
    assert after == files(tmp_path / "fresh/audio.h5"), "a store that grew is the store made at once"
    assert (tmp_path / "audio.h5").read_bytes() == (tmp_path / "fresh/audio.h5").read_bytes()


def test_it_becomes_one_file_again(tmp_path):
    write(tmp_path / "audio.h5", CLIPS, 8)
    write(tmp_path / "audio.h5", CLIPS, 1e9)
    write(tmp_path / "one.h5", CLIPS, 1e9)
    assert (tmp_path / "audio.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert not files(tmp_path / "audio.h5") and shards.folder_of(tmp_path / "audio.h5").is_dir()


def one_file(path: Path) -> Path:
    return sorted(shards.folder_of(path).glob("*.h5"), key=lambda one: one.name)[1]


def damage_values(shard: Path, whole: bytes) -> None:
    with h5py.File(shard) as file:
        place = file["values"].id.get_offset()
    shard.write_bytes(whole[: place + 3] + bytes([whole[place + 3] ^ 1]) + whole[place + 4 :])


def damage_offsets(shard: Path, whole: bytes) -> None:
    with h5py.File(shard) as file:
        place = file["status"].id.get_offset()
    shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])


DAMAGES = {
    "a value": (damage_values, "holds other rows than were written"),
    "a status": (damage_offsets, "is not as it was written"),
    "cut off": (lambda shard, whole: shard.write_bytes(whole[: len(whole) // 2]), "cannot be read as HDF5"),
    "gone": (lambda shard, _: shard.unlink(), "is not there"),
    "another": (lambda shard, _: shutil.copy(sorted(shard.parent.glob("*.h5"))[0], shard), "is not the file that"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_file_that_is_not_right_is_named_in_one_line(kind, tmp_path):
    damage, says = DAMAGES[kind]
    path = tmp_path / "audio.h5"
    write(path, CLIPS, 8)
    shard = one_file(path)
    damage(shard, shard.read_bytes())
    with pytest.raises(StoreError) as caught:
        Store(path).verify()
    assert says in str(caught.value) and str(shard) in str(caught.value) and "\n" not in str(caught.value)
    write(path, CLIPS, 8)
    Store(path).verify()


def test_a_store_names_no_file_but_those_beside_it(tmp_path):
    write(tmp_path / "secret/audio.h5", CLIPS, 1e9)
    for link in (str(tmp_path / "secret/audio.h5"), "../secret/audio.h5"):
        with atomic_hdf5(tmp_path / "audio.h5") as (file, _):
            file["shards/00000"] = h5py.ExternalLink(link, "/")
            texts = np.array([Store(tmp_path / "secret/audio.h5").seal.encode()], dtype=object)
            file.create_dataset("seals", data=texts, dtype=h5py.string_dtype("utf-8"))
            file.attrs["schema"] = feature_store.SCHEMA_VERSION
            seal.seal(file)
        with pytest.raises(StoreError, match="which is not beside it"):
            Store(tmp_path / "audio.h5")


@pytest.mark.parametrize("spoil", sorted(CLIPS)[::7])
@pytest.mark.parametrize("before", [8, 1e9])
def test_a_run_that_ends_in_the_middle_leaves_the_store_of_before_whole(before, spoil, tmp_path):
    path, grown = tmp_path / "audio.h5", {clip: rows + 1 for clip, rows in CLIPS.items()}
    write(path, CLIPS, before)
    write(tmp_path / "same/audio.h5", CLIPS, 1e9)
    with pytest.raises(KeyboardInterrupt):
        write(path, grown, 6, spoil=spoil)
    store = Store(path)
    store.verify()
    assert_same(store, Store(tmp_path / "same/audio.h5"))
    write(path, grown, 6)
    write(tmp_path / "fresh/audio.h5", grown, 6)
    assert files(path) == files(tmp_path / "fresh/audio.h5"), "and nothing of it is left"


def cut(path: Path, limit: int) -> None:
    """A store of one file as one of several."""
    store, attributes = Store(path), {}
    for name, value in store.attributes.items():
        if name not in ("schema", "complete", "seal", "float16_error"):
            attributes[name] = value
    entries = {clip: store[clip] for clip in store.ids}
    runs = shards.split(store.ids, [len(entries[clip].values) for clip in store.ids], limit)

    def make(i: int, where: Path) -> None:
        own = store.ids[runs[i]]
        rows = [len(entries[clip].values) for clip in own]
        feature_store.write(
            where,
            own,
            [entries[clip] for clip in own],
            rows=rows,
            shape=store.shape[1:],
            dtype=str(store.dtype),
            attributes=attributes | {"made_of": where.stem},
        )

    shards.write(path, [f"run{i}" for i in range(len(runs))], make, attributes)
    assert len(runs) > 3


def test_index_and_training_see_one_store(fabricate):
    one, many = fabricate("one", levels=2), fabricate("many", levels=2)
    for name in one.widths:
        cut(many.path(f"features/{name}.h5"), 40)
    found = [Index(corpus.index()) for corpus in (one, many)]
    for name in found[0].names:
        first, second = (each.stream(name) for each in found)
        for part in ("row", "status", "mean", "std"):
            np.testing.assert_array_equal(getattr(first, part), getattr(second, part))
        assert first.facts | {"digest": ""} == second.facts | {"digest": ""}
    data = [Dataset.load(corpus.path("data/index.h5"), params=corpus.params(), fold=0, **corpus.files) for corpus in (one, many)]
    for name, stream in data[0].streams.items():
        np.testing.assert_array_equal(stream.values, data[1].streams[name].values)
        np.testing.assert_array_equal(stream.times, data[1].streams[name].times)
    with h5py.File(many.path("data/index.h5")) as file:
        assert file["streams/audio/store/shards/00000/values"].shape[1:] == one.widths["audio"]


def test_the_files_of_a_stream_that_is_no_more_go_with_it(fabricate):
    corpus = fabricate()
    cut(corpus.path("features/text.h5"), 40)
    assert index.remove_stale(corpus.path("features"), ["audio", "video"]) == ["text"]
    assert not shards.folder_of(corpus.path("features/text.h5")).exists()
    assert os.path.exists(corpus.path("features/audio.h5"))

"""The clip cache: transactional, shared, checked."""

import contextlib
import multiprocessing
import os
import resource

import numpy as np
import pytest

from pipeline.errors import CacheError
from pipeline.storage import housekeeping, lmdb_folder
from pipeline.storage.clip_cache import ClipCache, digest, pack, read_outline, unpack
from pipeline.storage.feature_store import Entry, Status


def entry(n=2, seed=0):
    return Entry(np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32), np.zeros((n, 2), np.float32))


def test_round_trip_and_header():
    for one in (entry(), entry(0), Entry(np.zeros((0,), np.float32), np.zeros((0, 2), np.float32), Status.MISSING, "no sound")):
        back = unpack(pack(one))
        np.testing.assert_array_equal(back.values, one.values)
        assert (back.status, back.reason) == (one.status, one.reason)
        assert read_outline(pack(one)) == (len(one.times), one.values.shape, one.status, one.reason)


def test_extras_come_back_by_name():
    extras = {"lengths": np.array([3, 2**40]), "filled": np.array([True, False]), "boxes": np.ones((2, 4), np.float32)}
    back = unpack(pack(Entry(np.zeros(5, np.uint8), np.zeros((2, 2), np.float32), extras=extras)))
    assert back.extras.keys() == extras.keys() and back.times.shape == (2, 2)
    for name, array in extras.items():
        np.testing.assert_array_equal(back.extras[name], array)
        assert back.extras[name].dtype == array.dtype
    assert unpack(pack(entry())).extras == {}


def test_identity_decides_the_environment():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with ClipCache("extract", {"layer": 1}) as one, ClipCache("extract", {"layer": 2}) as two:
        one.put({"x": entry()})
        assert one.missing(["x", "y"]) == {"y"} and two.missing(["x"]) == {"x"}


def test_a_damaged_entry_is_found_and_dropped():
    with ClipCache("extract", {"a": 1}) as clips:
        clips.put({"x": entry(), "y": entry(seed=1)})
        data = bytearray(pack(entry()))
        data[-1] ^= 1
        with clips._lmdb.begin(write=True) as transaction:
            transaction.put(b"x", bytes(data))
        with pytest.raises(CacheError, match="checksum"):
            clips.get("x")
    assert housekeeping.verify_clips() == 1
    assert housekeeping.verify_clips(repair=True) == 1
    assert housekeeping.verify_clips() == 0
    with ClipCache("extract", {"a": 1}) as clips:
        assert clips.missing(["x", "y"]) == {"x"}


def test_stats_and_collection():
    with ClipCache("extract", {"family": "clip", "weights": {"source": "random:0"}}) as clips:
        clips.put({"x": entry()})
        marker = clips.folder / "identity.json"
    assert "clip random:0" in housekeeping.format_stats() and " 1 clips" in housekeeping.format_stats()
    assert housekeeping.collect_idle(days=30) == ["nothing to remove"]
    os.utime(marker, (1, 1))
    assert housekeeping.collect_idle(days=30, dry_run=True)[0].startswith("would remove") and marker.exists()
    assert housekeeping.collect_idle(days=30)[0].startswith("removed") and not marker.exists()


def test_full_disk_is_one_line_and_loses_nothing(monkeypatch):
    with ClipCache("extract", {"a": 1}) as clips:
        clips.put({"x": entry()})
    with ClipCache("extract", {"a": 1}) as clips:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        try:
            with pytest.raises(CacheError, match="Nothing computed before is lost"):
                clips.put({"big": large()})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert clips.missing(["x", "big"]) == {"big"}
        clips.put({"big": large()})
        assert clips.missing(["x", "big"]) == set()


def large(seed: int = 0) -> Entry:
    """More than a small map has room for."""
    rows = np.random.default_rng(seed).normal(size=(1 << 13, 3)).astype(np.float32)
    return Entry(rows, np.zeros((1 << 13, 2), np.float32))


def test_the_map_grows_when_it_is_full(monkeypatch):
    monkeypatch.setattr(lmdb_folder, "MAP_SIZE", 64 << 10)
    with ClipCache("extract", {"a": 1}) as clips:
        for i in range(6):
            clips.put({f"{i}": large(i), f"small{i}": entry(seed=i)})
        assert clips._lmdb.info()["map_size"] >= 6 * large().values.nbytes > 16 * lmdb_folder.MAP_SIZE / 2
    with ClipCache("extract", {"a": 1}) as clips:
        for i in range(6):
            np.testing.assert_array_equal(clips.get(f"{i}").values, large(i).values)
        clips.put({"6": large(6)})
        assert len(clips) == 13 and not clips.verify()


def test_a_map_that_another_process_made_larger_is_followed(monkeypatch, tmp_path):
    monkeypatch.setattr(lmdb_folder, "MAP_SIZE", 64 << 10)
    with ClipCache("extract", {"a": 1}, base=tmp_path) as clips:
        clips.put({"x": entry()})
        other = multiprocessing.get_context("spawn").Process(target=_fill_large, args=(tmp_path,))
        other.start()
        other.join()
        assert other.exitcode == 0
        np.testing.assert_array_equal(clips.get("7").values, large(7).values)
        clips.put({"8": large(8)})
        assert clips.missing(["x", "7", "8", "9"]) == {"9"}


def _fill_large(base):
    with ClipCache("extract", {"a": 1}, base=base) as clips:
        clips.put({f"{i}": large(i) for i in range(8)})


def test_a_map_does_not_move_under_who_reads_it(monkeypatch):
    monkeypatch.setattr(lmdb_folder, "MAP_SIZE", 64 << 10)
    with ClipCache("extract", {"a": 1}) as clips:
        clips.put({f"{i}": entry(seed=i) for i in range(3)})
        reading = clips.iterate(["0", "1", "2"])
        first = next(reading)
        with pytest.raises(CacheError, match="while it is read; run again"):
            clips.put({"big": large()})
        np.testing.assert_array_equal([one.values for one in (first, *reading)], [entry(seed=i).values for i in range(3)])
        clips.put({"big": large()})
        assert clips.missing(["big"]) == set()


def test_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="AFFECTORY_CACHE"):
        ClipCache("extract", {})


def _fill(base, start):
    with ClipCache("extract", {"a": 1}, base=base) as clips:
        for i in range(start, start + 50):
            clips.put({f"{i}": entry(seed=i)})


def test_two_processes_share_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 25)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    with ClipCache("extract", {"a": 1}, base=tmp_path) as clips:
        assert len(clips) == 75 and not clips.verify()
        np.testing.assert_array_equal(clips.get("30").values, entry(seed=30).values)


@pytest.mark.parametrize("part", [0, 8, 16, 40, -1])
def test_any_changed_byte_of_an_entry_is_one_line_or_nothing(part):
    with ClipCache("extract", {"a": 1}) as cache:
        cache.put({"x": Entry(np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32))})
        whole = pack(cache.get("x"))
        damaged = bytearray(whole)
        damaged[part] ^= 0x81
        with cache._lmdb.begin(write=True) as transaction:
            transaction.put(b"x", bytes(damaged))
        with pytest.raises(CacheError, match="fails its checksum"):
            list(cache.iterate(["x"]))
        with contextlib.suppress(CacheError):
            cache.layout(["x"])
        assert cache.verify(repair=True) == ["x"] and cache.missing(["x"]) == {"x"}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.99])
def test_a_table_that_is_cut_off_is_one_line(share):
    with ClipCache("extract", {"a": 1}) as cache:
        for i in range(20):
            cache.put({f"{i}": Entry(np.full((100, 30), i, np.float32), np.zeros((100, 2), np.float32))})
    path = cache.folder / "data.mdb"
    os.truncate(path, 4096 * max(1, int(share * path.stat().st_size / 4096)))
    with pytest.raises(CacheError) as caught:
        with ClipCache("extract", {"a": 1}) as cache:
            list(cache.iterate(map(str, range(20))))
    assert str(cache.folder) in str(caught.value) and "\n" not in str(caught.value)

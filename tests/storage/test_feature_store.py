"""The store: same input same bytes, complete or absent, read without a copy."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.storage import feature_store
from pipeline.storage.feature_store import Entry, Status, Store


def entry(rows, width=3, seed=0, status=Status.OK):
    values = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    edges = np.arange(rows + 1, dtype=np.float32)
    return Entry(values, np.stack([edges[:-1], edges[1:]], 1), status)


def write(path, entries, **options):
    ids = [f"clip{i:03d}" for i in range(len(entries))]
    feature_store.write(path, ids, entries, rows=[len(e.values) for e in entries], shape=(3,), **options)
    return ids


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8),
    dtype=st.sampled_from(["float16", "float32"]),
    compression=st.sampled_from([None, "gzip"]),
)
def test_what_goes_in_comes_out_and_bytes_are_the_same(tmp_path_factory, lengths, dtype, compression):
    folder = tmp_path_factory.mktemp("store")
    entries = [entry(n, seed=i, status=Status.OK if n else Status.MISSING) for i, n in enumerate(lengths)]
    for name in ("a.h5", "b.h5"):
        ids = write(folder / name, entries, dtype=dtype, compression=compression, attributes={"identity": {"b": 1, "a": [2]}})
    assert (folder / "a.h5").read_bytes() == (folder / "b.h5").read_bytes()
    read = Store(folder / "a.h5")
    assert read.ids == ids and read.attributes["identity"] == {"a": [2], "b": 1}
    for clip, given_ in zip(ids, entries, strict=True):
        got = read[clip]
        np.testing.assert_array_equal(got.values, given_.values.astype(dtype))
        np.testing.assert_array_equal(got.times, given_.times)
        assert got.status == given_.status


def test_values_are_a_view_of_the_file(tmp_path):
    write(tmp_path / "a.h5", [entry(4), entry(2, seed=1)])
    read = Store(tmp_path / "a.h5")
    assert not read.values.flags.owndata and not read.values.flags.writeable


def test_plain_h5py_reads_it(tmp_path):
    write(tmp_path / "a.h5", [entry(4), entry(2, seed=1)])
    with h5py.File(tmp_path / "a.h5") as file:
        low, high = file["offsets"][1:3]
        np.testing.assert_array_equal(file["values"][low:high], entry(2, seed=1).values.astype(np.float16))
        assert file["ids"].asstr()[1] == "clip001"


def test_float16_error_is_recorded(tmp_path):
    one = entry(5)
    write(tmp_path / "a.h5", [one])
    worst = np.abs(one.values - one.values.astype(np.float16).astype(np.float32)).max()
    assert Store(tmp_path / "a.h5").attributes["float16_error"] == pytest.approx(float(worst))


def test_overflow_of_float16_is_an_error_and_leaves_nothing(tmp_path):
    big = Entry(np.full((1, 3), 1e6, np.float32), np.zeros((1, 2), np.float32))
    with np.errstate(over="ignore"), pytest.raises(StoreError, match="float32"):
        write(tmp_path / "a.h5", [big])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ids", [["b", "a"], ["a", "a"]])
def test_unsorted_or_double_ids(tmp_path, ids):
    with pytest.raises(StoreError, match="sorted and unique"):
        feature_store.write(tmp_path / "a.h5", ids, [entry(1), entry(1)], rows=[1, 1], shape=(3,))


def test_lzf_is_refused(tmp_path):
    with pytest.raises(StoreError, match="not reproducible"):
        write(tmp_path / "a.h5", [entry(1)], compression="lzf")


def test_incomplete_absent_and_foreign_files(tmp_path):
    with pytest.raises(StoreError, match="is not there"):
        Store(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(StoreError, match="cannot be read as HDF5"):
        Store(tmp_path / "text.h5")
    write(tmp_path / "a.h5", [entry(1)])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(StoreError, match="not complete"):
        Store(tmp_path / "a.h5")


def test_unknown_clip(tmp_path):
    write(tmp_path / "a.h5", [entry(1)])
    with pytest.raises(StoreError, match="no clip 'x'"):
        Store(tmp_path / "a.h5")["x"]

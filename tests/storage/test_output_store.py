"""Named outputs in one file: whole, as they were written, and no stream's store."""

import h5py
import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.features.index import remove_stale
from pipeline.storage import feature_store, inspect, output_store
from pipeline.storage.feature_store import Entry, Status

IDS = ["a", "b", "c"]


@pytest.fixture
def made(tmp_path):
    """Clip b lacks `states`; rows of `picture` are larger."""
    rng = np.random.default_rng(0)

    def entry(*shape):
        return Entry(rng.normal(size=(1, *shape)).astype(np.float32), np.array([[0, 2]], np.float32))

    gone = Entry(np.empty((0,), np.float32), np.empty((0, 2), np.float32), Status.FAILED, "broken")
    states, pictures = [entry(4), gone, entry(4)], [entry(6, 4), entry(6, 4), entry(6, 4)]
    path = tmp_path / "features" / "outputs.h5"
    path.parent.mkdir()
    outputs = {
        "states": output_store.Output(lambda: states, [1, 0, 1], (4,), ["", "broken", ""]),
        "picture": output_store.Output(lambda: pictures, [1, 1, 1], (6, 4), [""] * 3),
    }
    output_store.write(path, IDS, outputs, "float32", {"identity": {"weights": "x"}, "random": ["x"]})
    return path, {"states": states, "picture": pictures}


def test_any_reader_of_hdf5_finds_each_output(made):
    path, wanted = made
    with h5py.File(path) as file:
        assert file["picture/values"].shape == (3, 6, 4) and file["states/values"].shape == (2, 4)
        assert file["states/reasons"].asstr()[:].tolist() == ["", "broken", ""]
        np.testing.assert_array_equal(file["states/values"][:], np.concatenate([wanted["states"][i].values for i in (0, 2)]))
    outputs, attributes = output_store.read(path)
    assert outputs["states"].status.tolist() == [0, 2, 0] and attributes["identity"] == {"weights": "x"}
    np.testing.assert_array_equal(outputs["picture"].read(1)[0], wanted["picture"][1].values)
    assert inspect.verify(path) == 3 and "1 failed" in inspect.describe(path)


@pytest.mark.parametrize("name", ["states/offsets", "states/ids", "states/reasons", "picture/times"])
def test_what_was_changed_is_refused(made, name):
    path, _ = made
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        file[name][...] = values[::-1]
        if (values[::-1] == values).all():
            del file[name]
    with pytest.raises(StoreError, match="not as it was written"):
        output_store.read(path)


def test_changed_rows_are_told_by_the_clip(made):
    path, _ = made
    with h5py.File(path, "r+") as file:
        file["picture/values"][1, 2, 3] = 9
    outputs, _ = output_store.read(path)
    outputs["picture"].read(0)
    with pytest.raises(StoreError, match="picture holds other rows than were written, of clip b"):
        outputs["picture"].read(1)
    with pytest.raises(StoreError, match="of clip b"):
        inspect.verify(path)


def test_it_is_no_streams_store(made):
    path, wanted = made
    assert output_store.is_output(path) and remove_stale(path.parent, []) == [] and path.exists()
    other = path.with_name("audio.h5")
    feature_store.write(other, ["a"], wanted["states"][:1], rows=[1], shape=(4,))
    assert not output_store.is_output(other) and not output_store.is_output(path.with_name("none.h5"))
    with pytest.raises(StoreError, match="sorted and unique"):
        output_store.write(other, ["b", "a"], {}, "float32", {})

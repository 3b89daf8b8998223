"""Files are read beside others who read them, and none is called damaged that was not read."""

import os
import sys
from errno import EACCES, EMFILE

import h5py
import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.storage import feature_store
from pipeline.storage.feature_store import Entry, Store
from pipeline.storage.hdf5 import is_refused, open_hdf5


@pytest.fixture
def path(tmp_path):
    rows = Entry(np.ones((2, 3), np.float32), np.array([[0, 1], [1, 2]], np.float32))
    feature_store.write(tmp_path / "a.h5", ["clip"], [rows], rows=[2], shape=(3,))
    return tmp_path / "a.h5"


@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_notebook_that_has_it_open_is_no_hindrance(path, locking, mode):
    with h5py.File(path, mode, locking=locking) as theirs:
        ours = Store(path)
        assert ours["clip"].values.shape == (2, 3)
        with open_hdf5(path) as file:
            np.testing.assert_array_equal(file["values"][:], theirs["values"][:])
    with h5py.File(path, locking=locking) as theirs:  # nor are we: a store holds no file open
        assert theirs["ids"].asstr()[0] == "clip"


def test_what_the_system_refuses_is_not_called_damaged(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(EACCES, "Permission denied")

    monkeypatch.setattr(sys.modules["pipeline.storage.hdf5"].h5py, "File", refuse)
    with pytest.raises(StoreError, match="cannot be opened now .*Permission denied.*what it holds was not read") as caught:
        Store(path)
    assert "elete" not in str(caught.value)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else(path):
    path.chmod(0)
    with pytest.raises(StoreError, match="cannot be opened now"):
        Store(path)


def test_damage_is_told_from_refusal(path):
    assert is_refused(OSError(EMFILE, "Too many open files")) and not is_refused(KeyError("ids"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match="Delete it"):
        Store(path)

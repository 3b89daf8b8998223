"""Files that claim more than they hold, lead elsewhere or want to act: one line, no memory taken, nothing run."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

from pipeline.errors import WeightsError
from pipeline.features.encoders.extractor import Clip
from pipeline.features.encoders.imports import import_, unpickle
from pipeline.params import Stream

HUGE = 2**45  # 32 TiB of bytes
REBUILD = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n"
LARGE = b"(L35184372088832L\nt"
PICKLES = {
    "an array without bytes": REBUILD + b"(cnumpy\nndarray\n" + LARGE + b"U\x01btR.",
    "numpy.ndarray called": b"\x80\x02cnumpy\nndarray\n" + LARGE + b"R.",
    "numpy.ndarray made": b"\x80\x02cnumpy\nndarray\n" + LARGE + b"\x81.",
    "a bytearray of a length": b"\x80\x02cbuiltins\nbytearray\n" + LARGE + b"R.",
    "bytes beyond the file": b"\x80\x04\x8e" + struct.pack("<Q", HUGE) + b"abc.",
    "a bytearray beyond the file": b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"abc.",
    "a place it cannot have": b"\x80\x02K\x01r\xff\xff\xff\xff.",
    "BUILD on a function": REBUILD + b"}(U\x01aK\x01ub.",
    "BUILD on its defaults": REBUILD + b"N}(U\x0c__defaults__K\x01u\x86b.",
    "BUILD on a class": b"\x80\x02cbuiltins\nset\n}(U\x01aK\x01ub.",
    "another codec": b"\x80\x02c_codecs\nencode\nU\x03abcU\x03zip\x86R.",
    "a function by INST": b"(S'touch NEVER'\nios\nsystem\n.",
    "a function by STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch NEVER\x85R.",
    "a function by GLOBAL": b"cbuiltins\neval\n(S'1'\ntR.",
    "an extension": b"\x80\x02\x82\x01.",
    "a structured kind": b"\x80\x02cnumpy\ndtype\nU\x03V16\x85R.",
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_takes_no_memory_and_changes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "f.pkl"
    path.write_bytes(PICKLES[name])
    with pytest.raises(WeightsError) as caught:
        unpickle.load(path)
    assert "\n" not in str(caught.value) and not (tmp_path / "NEVER").exists()


def test_an_array_whose_bytes_are_fewer_than_it_says(tmp_path):
    whole = pickle.dumps(np.arange(4.0), 2)
    assert whole.count(b"K\x04\x85") == 1
    (tmp_path / "f.pkl").write_bytes(whole.replace(b"K\x04\x85", b"\x8a\x06\x00\x00\x00\x00\x00\x20\x85"))
    with pytest.raises(WeightsError, match="claims 281474976710656 bytes or values and 32 are there"):
        unpickle.load(tmp_path / "f.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_kind(tmp_path, protocol):
    value = {
        "big-endian": np.arange(6, dtype=">f8").reshape(2, 3),
        "words": np.array(["x", "yy"]),
        "bytes": np.array([b"x", b"yy"]),
        "objects": np.array(["x", None], dtype=object),
        "none": np.zeros((0, 4), np.float32),
        "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "flags": np.array([True, False]),
        "every other": np.arange(10)[::2],
        "one": np.array(3.0),
    }
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(value | {"number": np.int16(4)}, protocol))
    found = unpickle.load(tmp_path / "f.pkl")
    assert found["number"] == 4
    for name, wanted in value.items():
        np.testing.assert_array_equal(found[name], wanted)
        assert found[name].dtype.kind == wanted.dtype.kind and found[name].shape == wanted.shape


def npy(shape) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return header.getvalue() + bytes(64)


def build(path):
    stream = Stream(modality="video", source="x", encoder="import", weights=f"file:{path}")
    return import_.Import.build(stream, import_.Import.Options())


def test_an_array_file_that_claims_32_tib(tmp_path):
    (tmp_path / "f.npy").write_bytes(npy((2**42, 1)))
    (tmp_path / "f.ids.txt").write_text("a\n")
    with zipfile.ZipFile(tmp_path / "g.npz", "w") as archive:
        archive.writestr("a.npy", npy((2**42,)))
    for name in ("f.npy", "g.npz"):
        with pytest.raises(WeightsError, match="claims 35184372088832 bytes") as caught:
            build(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.npy").write_bytes(npy((2**42,)))
    with pytest.raises(ValueError, match="claims 35184372088832 bytes"):
        build(tmp_path / "clips").prepare(Clip("a"))


def test_a_data_set_that_claims_32_tib(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("large", (2**42,), "f8", chunks=(1024,))
        file["good"] = np.arange(3.0)
    extractor = build(tmp_path / "f.h5")
    assert extractor.prepare(Clip("good")).inputs["values"].tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match="claims"):
        extractor.prepare(Clip("large", duration=1.0))


@pytest.mark.parametrize("name", ["f.csv", "f.npz", "f.h5", "f.pkl", "f.npy"])
def test_a_pointer_of_git_lfs_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(PICKLES["git-lfs"])
    (tmp_path / "f.ids.txt").write_text("a\n")
    with pytest.raises(WeightsError, match="git-lfs pointer.*git lfs pull"):
        build(tmp_path / name)

"""A store that is not as it was written is one line, or gives what it always gave; no other file is read in its place."""

import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import StoreError, UserError
from pipeline.storage import feature_store, media_store, seal
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry, Status, Store
from pipeline.storage.index import Index
from pipeline.storage.inspect import describe, verify
from pipeline.storage.media_store import Media

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("features", "packed", "media", "index")


def write_features(path, compression=None):
    chance = np.random.default_rng(3)
    entries = []
    for rows in (3, 0, 2, 5):
        edges = np.arange(rows + 1, dtype=np.float32)
        values = chance.normal(size=(rows, 4)).astype(np.float32)
        entries.append(Entry(values, np.stack([edges[:-1], edges[1:]], 1), Status.OK if rows else Status.MISSING))
    attributes = {"stream": "audio", "modality": "audio", "identity": {"a": [1]}}
    views = {
        name: feature_store.View([entries[i] for i in order], [rows[i] for i in order], {"failures": {"b": "why"}})
        for rows in [(3, 0, 2, 5)]
        for name, order in {"speed:0.9": (3, 1, 0, 2), "speed:1.1": (1, 2, 1, 1)}.items()
    }
    feature_store.write(
        path, list("abcd"), entries, rows=[3, 0, 2, 5], shape=(4,), compression=compression, attributes=attributes, views=views
    )


def write_media(path, folder):
    rows, entries = [], {}
    for i, clip in enumerate("abc"):
        files = [bytes([65 + i]) * (7 + j) for j in range(i + 1)]
        rows.append({"id": clip, "content": clip, "video": "x"})
        entries[clip] = media_store.join_files(files, np.array([[j, j + 1] for j in range(len(files))]))
    with ClipCache("frames", {"kind": "frames"}, base=folder) as cache:
        cache.put(entries)
        media_store.pack(path, rows, "video", cache, {"kind": "frames", "rate": 4}, {})


def read_features(path):
    store = Store(path)
    found = [(clip, store[clip].values.tolist(), store[clip].times.tolist(), int(store[clip].status)) for clip in store.ids]
    assert store.values.tolist() == [row for _, rows, *_ in found for row in rows]
    for name, view in store.views.items():
        rows = [view.read(i) for i in range(len(view))]
        assert view.values.tolist() == [row for values, _ in rows for row in values.tolist()]
        found.append((name, view.values.tolist(), view.times.tolist(), view.status.tolist(), view.attributes))
    return found, store.attributes


def read_media(path):
    media = Media(path)
    found = [(clip, [bytes(i) for i in media[clip].items], media[clip].times.tolist(), media[clip].status) for clip in media.ids]
    return found, media.identity, media.modality


def read_index(path):
    index = Index(path)
    parts = [index.stream(name) for name in index.names]
    arrays = [(p.row.tolist(), p.status.tolist(), p.mean.tolist(), p.std.tolist(), p.store.values.tolist()) for p in parts]
    return index.ids, index.folds, arrays, [p.facts for p in parts]


READ = {"features": read_features, "packed": read_features, "media": read_media, "index": read_index}


@pytest.fixture
def make(tmp_path, fabricate):
    """`make(kind)` → a small sound file."""

    def write(kind):
        path = tmp_path / f"{kind}.h5"
        if kind == "media":
            write_media(path, tmp_path / "base")
        elif kind == "index":
            return fabricate(clips=20).index()
        else:
            write_features(path, "gzip" if kind == "packed" else None)
        return path

    return write


def datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sorted(names)


def replace(file, name, data, **options):
    del file[name]
    file.create_dataset(name, data=data, **options)


def change(chance, path):
    """One change to a file, by h5py or to its bytes; says which."""
    kind = chance.choice(
        ["delete", "dtype", "shape", "number", "negative", "beyond", "order", "nan", "attribute", "type", "without", "scalar"]
        + ["flip", "cut", "flip", "link"]
    )
    if kind in ("flip", "cut"):
        data = bytearray(path.read_bytes())
        at = chance.randrange(len(data))
        if kind == "cut":
            data = data[:at]
        else:
            data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        return f"{kind} {at}"
    with h5py.File(path, "r+") as file:
        name = chance.choice(datasets(file))
        array = file[name][()]
        held = chance.choice([file, file[name].parent])
        known = list(held.attrs)
        if kind == "delete":
            del file[name]
        elif kind == "dtype":
            replace(file, name, np.zeros(array.shape, chance.choice(["f8", "i1", "S3"])))
        elif kind == "shape":
            replace(file, name, array[:-1] if chance.random() < 0.5 else array[None])
        elif kind == "scalar":
            replace(file, name, 3)
        elif kind == "link":
            del file[name]
            file[name] = chance.choice([h5py.SoftLink("/offsets"), h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/none")])
        elif kind == "order":
            replace(file, name, array[::-1], **({"dtype": h5py.string_dtype("utf-8")} if array.dtype == object else {}))
        elif kind == "attribute" and known:
            held.attrs[chance.choice(known)] = chance.choice(["other", 17, -1.5])
        elif kind == "type" and known:
            held.attrs[chance.choice(known)] = chance.choice([np.arange(3), np.bytes_(b"\xff"), h5py.Empty("f4")])
        elif kind == "without" and known:
            del held.attrs[chance.choice(known)]
        elif array.size and array.dtype != object:
            at = chance.randrange(array.size)
            value = {"negative": -1.0, "beyond": 1e6, "nan": np.nan}.get(kind, 1.0)
            with np.errstate(invalid="ignore", over="ignore"):
                array.reshape(-1)[at : at + 1] = np.array([value]).astype(array.dtype)
            file[name][...] = array
        return f"{kind} {name}"


@pytest.mark.parametrize("kind", NAMES)
def test_a_changed_file_is_one_line_or_gives_what_it_always_gave(make, kind):
    path = make(kind)
    whole, expected = path.read_bytes(), READ[kind](path)
    chance, refused = random.Random(11), 0
    for number in range(120):
        path.write_bytes(whole)
        what = change(chance, path)
        try:
            assert READ[kind](path) == expected, (number, what)
        except UserError as error:
            said = str(error)
            assert str(path) in said and "\n" not in said and ("dvc repro" in said), (number, what, said)
            refused += 1
            with pytest.raises(UserError):
                verify(path)
    assert refused > 80
    path.write_bytes(whole)
    assert READ[kind](path) == expected and verify(path) in (3, 4, 20)


@pytest.mark.parametrize("kind", NAMES)
def test_inspect_says_one_line_about_any_damage(make, kind):
    path = make(kind)
    whole, chance = path.read_bytes(), random.Random(5)
    for _ in range(40):
        path.write_bytes(whole)
        change(chance, path)
        try:
            assert describe(path)
        except StoreError as error:
            assert "\n" not in str(error)


def test_swapped_rows_are_told_by_the_clip(make):
    path = make("features")
    with h5py.File(path, "r+") as file:
        file["values"][0:2] = file["values"][0:2][::-1]
    store = Store(path)
    assert store["d"].values.shape == (5, 4)  # of which nothing changed
    for read in (lambda: store["a"], lambda: store.values, store.verify):
        with pytest.raises(StoreError, match="other rows than were written, of clip a"):
            read()


@pytest.mark.parametrize("kind", ["features", "packed"])
def test_a_view_put_in_the_place_of_another_is_told(make, kind):
    path = make(kind)
    whole = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file.move("views/speed:0.9", "views/x")
    with pytest.raises(StoreError, match="not as it was written"):
        Store(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["views/speed:0.9/values"][4, 1] = 17
    view = Store(path).views["speed:0.9"]
    view.read(2)
    with pytest.raises(StoreError, match="views/speed:0.9 holds other rows than were written, of clip a"):
        view.read(0)
    with pytest.raises(StoreError, match="of clip a"):
        _ = view.values
    assert Store(path).values.shape == (10, 4)
    with pytest.raises(StoreError, match="of clip a"):
        verify(path)
    with h5py.File(path, "r+") as file:
        file["views/speed:0.9/offsets"][4] = 9
        seal.seal(file)
    with pytest.raises(StoreError, match="the arrays of views/speed:0.9 do not fit each other"):
        Store(path)


def test_media_put_in_the_place_of_others(make):
    path = make("media")
    with h5py.File(path, "r+") as file:
        file["values"][-1] = 7
    media = Media(path)
    assert bytes(media["a"].items[0]) == b"A" * 7
    with pytest.raises(StoreError, match="other files than were written, of clip c"):
        media["c"]


def test_a_store_put_in_the_place_of_another_is_not_the_indexed_one(fabricate):
    corpus = fabricate(clips=20)
    index = Index(corpus.index())
    corpus.store("audio", (6,), 0.9)  # the same clips, other rows
    with pytest.raises(StoreError, match="audio.h5 has changed since"):
        index.stream("audio")
    assert index.stream("text").store.ids == corpus.ids


def outside(path, kind):
    """Features whose bytes lie in another file."""
    secret = path.with_name("secret")
    secret.write_bytes(bytes(range(256)) * 4)
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["x"] = np.ones((10, 4), np.float16)
    with h5py.File(path, "r+") as file:
        del file["values"]
        if kind == "external":
            file.create_dataset("values", (10, 4), "float16", external=[(str(secret), 0, 80)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((10, 4), "float16")
            layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "x", (10, 4))
            file.create_virtual_dataset("values", layout)
        elif kind == "link":
            file["values"] = h5py.ExternalLink(str(path.with_name("other.h5")), "/x")
        else:
            file["values"] = h5py.SoftLink("/times")
        del file.attrs["seal"]
    return secret


@pytest.mark.parametrize("kind", ["external", "virtual", "link", "soft"])
def test_no_other_file_is_read_in_place_of_the_values(make, kind):
    path = make("features")
    outside(path, kind)
    for read in (Store, describe, verify):
        with pytest.raises(StoreError, match="another file|somewhere else") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_seal_put_on_arrays_that_do_not_fit_is_refused(make):
    for name, value in (("offsets", 10**6), ("offsets", -1), ("status", 7)):
        path = make("features")
        with h5py.File(path, "r+") as file:
            file[name][2] = value
            del file.attrs["seal"]
            seal.seal(file)
        with pytest.raises(StoreError, match="do not fit"):
            Store(path)


def test_inspect_verify_on_the_command_line(make):
    path = make("features")
    command = [sys.executable, "-m", "pipeline", "inspect", str(path), "--verify"]
    assert "4 clips are as they were written" in subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    with h5py.File(path, "r+") as file:
        file["values"][9, 3] = np.inf
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "NaN or infinity in row 9, of clip d" in done.stderr and "Traceback" not in done.stderr

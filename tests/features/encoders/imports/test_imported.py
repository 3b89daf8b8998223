"""Ready-made features: every layout gives the same rows, joined by id."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

from pipeline.errors import ParamsError, StoreError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.encoders.imports import files, import_, unpickle
from pipeline.features.encoders.imports.file_layout import Layout
from pipeline.features.engine import reader
from pipeline.features.engine.forward import Forward
from pipeline.features.extract import name_axis
from pipeline.params import Stream
from pipeline.storage import feature_store, tables

IDS = ["meld/test/dia3_utt7", "007", "b", "a"]
VALUES = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
WANTED = dict(zip(IDS, VALUES, strict=True))


def stream(path, **kwargs) -> Stream:
    return Stream(modality="video", source=str(path), encoder="import", weights=f"file:{path}", **kwargs)


def get(extractor, clip):
    ((values, times),) = Forward(extractor, device="cpu")([extractor.prepare(Clip(clip, duration=2.0))])
    return values, times


def csv(path, order=range(4), separator=","):
    lines = [separator.join(["clip", "x", "y", "z", "who"])]
    lines += [separator.join([IDS[i], *(repr(float(v)) for v in VALUES[i]), "someone"]) for i in order]
    path.write_text("\n".join(lines) + "\n")


def write_csv(folder: Path) -> Path:
    csv(folder / "f.csv")
    return folder / "f.csv"


def write_tsv(folder: Path) -> Path:
    csv(folder / "f.tsv", separator="\t")
    return folder / "f.tsv"


def write_parquet(folder: Path) -> Path:
    pl.DataFrame({"clip": IDS, "x": VALUES[:, 0], "y": VALUES[:, 1], "z": VALUES[:, 2]}).write_parquet(folder / "f.parquet")
    return folder / "f.parquet"


def write_pt(folder: Path) -> Path:
    import torch

    torch.save({clip: torch.from_numpy(row) for clip, row in WANTED.items()}, folder / "f.pt")
    return folder / "f.pt"


def write_list_parquet(folder: Path) -> Path:
    pl.DataFrame({"clip": IDS, "vector": VALUES.tolist()}).write_parquet(folder / "g.parquet")
    return folder / "g.parquet"


def write_npy(folder: Path) -> Path:
    np.save(folder / "f.npy", VALUES)
    (folder / "f.ids.txt").write_text("\n".join(IDS) + "\n")
    return folder / "f.npy"


def write_npz(folder: Path) -> Path:
    np.savez(folder / "f.npz", **WANTED)
    return folder / "f.npz"


def write_paired_npz(folder: Path) -> Path:
    np.savez(folder / "g.npz", ids=np.array(IDS), features=VALUES)
    return folder / "g.npz"


def write_h5(folder: Path) -> Path:
    with h5py.File(folder / "f.h5", "w") as file:
        for clip, values in WANTED.items():
            file[clip] = values
    return folder / "f.h5"


def write_timed_h5(folder: Path) -> Path:
    with h5py.File(folder / "g.h5", "w") as file:
        for clip, values in WANTED.items():
            file[f"{clip}/features"], file[f"{clip}/intervals"] = values[None], [[0.0, 2.0]]
    return folder / "g.h5"


def write_store(folder: Path) -> Path:
    ids = sorted(IDS)
    entries = [feature_store.Entry(WANTED[i][None], np.array([[0, 2.0]], np.float32)) for i in ids]
    feature_store.write(folder / "s.h5", ids, entries, rows=[1] * 4, shape=(3,), dtype="float32")
    return folder / "s.h5"


def write_pickle(folder: Path) -> Path:
    (folder / "f.pkl").write_bytes(pickle.dumps(WANTED))
    return folder / "f.pkl"


def write_old_pickle(folder: Path) -> Path:
    data = pickle.dumps({k: list(map(float, v)) for k, v in WANTED.items()}, protocol=2)
    (folder / "g.pickle").write_bytes(data)
    return folder / "g.pickle"


def write_folder(folder: Path) -> Path:
    for clip, values in WANTED.items():
        path = folder / "clips" / f"{clip}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    return folder / "clips"


WRITERS = [value for name, value in sorted(globals().items()) if name.startswith("write_")]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.__name__.removeprefix("write_"))
def test_every_layout_gives_the_same_rows(writer, tmp_path):
    extractor = registry.build(stream(writer(tmp_path)))
    for clip, wanted in WANTED.items():
        values, times = get(extractor, clip)
        np.testing.assert_allclose(values, wanted[None], rtol=1e-6)
        np.testing.assert_allclose(times, [[0, 2]])
    with pytest.raises(Missing, match="no clip c"):
        extractor.prepare(Clip("c"))
    assert extractor.notes["imported clips"] == 4
    assert json.loads(json.dumps(extractor.identity)) == extractor.identity
    assert pickle.loads(pickle.dumps(extractor.prepare))(Clip("a")).inputs["values"].shape == (1, 3)


def test_joined_by_id_never_by_position(tmp_path):
    csv(tmp_path / "one.csv")
    csv(tmp_path / "two.csv", order=[2, 0, 3, 1])
    one, two = (registry.build(stream(tmp_path / name)) for name in ("one.csv", "two.csv"))
    for clip in IDS:
        np.testing.assert_array_equal(get(one, clip)[0], get(two, clip)[0])
    assert one.identity != two.identity


def test_rows_over_time(tmp_path):
    table = pl.DataFrame({"name": ["a"] * 4 + ["b"], "t": [1.5, 0.0, 0.5, 1.0, 0.0], "x": [3.0, 0.0, 1.0, 2.0, 9.0]})
    table.write_parquet(tmp_path / "f.parquet")
    extractor = registry.build(stream(tmp_path / "f.parquet", options={"start_column": "t"}))
    values, times = get(extractor, "a")
    assert values[:, 0].tolist() == [0, 1, 2, 3] and times[:, 0].tolist() == [0, 0.5, 1.0, 1.5]
    pooled = registry.build(stream(tmp_path / "f.parquet", options={"start_column": "t"}, rate=1))
    assert get(pooled, "a")[0][:, 0].tolist() == [0.5, 2.5]
    assert get(registry.build(stream(tmp_path / "f.parquet", pooling="max", options={"columns": ["x"]})), "a")[0].tolist() == [
        [3.0]
    ]


@pytest.mark.parametrize("axis", ["layer", "space"])
def test_arrays_of_layers_or_places(tmp_path, axis):
    """(N, D) is then one row of the whole clip, (T, N, D) one for each moment; nobody guesses which N is."""
    flat, deep = np.arange(6.0).reshape(3, 2), np.arange(24.0).reshape(4, 3, 2)
    np.savez(tmp_path / "f.npz", a=flat, b=deep)
    plain, told = (registry.build(stream(tmp_path / "f.npz", options=one)) for one in ({}, {"axis": axis}))
    assert plain.axis is None and told.axis == axis and plain.identity != told.identity
    assert get(plain, "a")[0].shape == (3, 2)
    values, times = get(told, "a")
    np.testing.assert_array_equal(values, flat[None])
    assert times.tolist() == [[0, get(plain, "a")[1][-1, 1]]]
    np.testing.assert_array_equal(get(told, "b")[0], deep)
    np.testing.assert_array_equal(get(plain, "b")[0], deep)
    assert name_axis("x", told, (3, 2)) == {"axis": axis} and name_axis("x", plain, (2,)) == {}
    with pytest.raises(StoreError, match=r"stream x: rows are \(3, 2\).*set options.axis to layer or space"):
        name_axis("x", plain, (3, 2))


def test_times_of_rows_without_any(tmp_path):
    np.savez(tmp_path / "f.npz", a=np.arange(8.0).reshape(4, 2))
    np.testing.assert_allclose(get(registry.build(stream(tmp_path / "f.npz")), "a")[1][:, 0], [0, 0.5, 1, 1.5])
    extractor = registry.build(stream(tmp_path / "f.npz", options={"fps": 10}))
    np.testing.assert_allclose(get(extractor, "a")[1][:, 0], [0, 0.1, 0.2, 0.3], atol=1e-6)


def test_rows_that_are_not_numbers_are_missing_not_zero(tmp_path):
    np.savez(tmp_path / "f.npz", a=np.array([[1, 2], [np.nan, 2], [3, 4]]), b=np.full(2, np.nan))
    extractor = registry.build(stream(tmp_path / "f.npz"))
    values, times = get(extractor, "a")
    assert values.tolist() == [[1, 2], [3, 4]] and len(times) == 2
    with pytest.raises(Missing, match="no number"):
        extractor.prepare(Clip("b"))


def test_names_are_made_to_meet(tmp_path):
    (tmp_path / "f.csv").write_text("file,x\n/data/wav/Ses01_a.wav,1\n/data/wav/Ses01_b.wav,2\n")
    extractor = registry.build(stream(tmp_path / "f.csv", options={"file_id": "stem", "clip_id": "stem"}))
    assert get(extractor, "iemocap/Ses01_b")[0].tolist() == [[2.0]]
    report = import_.measure_coverage(extractor, ["iemocap/Ses01_b", "iemocap/Ses01_c"])
    assert report == {"clips": 2, "covered": 1, "absent": ["iemocap/Ses01_c"], "unused": 1, "unused names": ["Ses01_a"]}
    with pytest.raises(ParamsError, match="both become"):
        registry.build(stream(tmp_path / "f.csv", options={"file_id": "Ses01"}))
    with pytest.raises(ParamsError, match="regular expression"):
        registry.build(stream(tmp_path / "f.csv", options={"file_id": "("}))


def test_parts_of_a_pickle(tmp_path):
    content = {
        "train": {"id": ["a", "b"], "audio": None, "data": np.ones((2, 5, 3))},
        "test": {"id": ["c"], "x": [[1, 2]]},
    }
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(content))
    assert get(registry.build(stream(tmp_path / "f.pkl", options={"key": "train"})), "b")[0].shape == (5, 3)
    assert get(registry.build(stream(tmp_path / "f.pkl", options={"key": "test"})), "c")[0].tolist() == [[1, 2]]
    with pytest.raises(ParamsError, match="test"):
        registry.build(stream(tmp_path / "f.pkl", options={"key": "tset"}))


class Evil:
    def __reduce__(self):
        return (__import__("os").system, ("touch /tmp/never",))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_runs_no_code(tmp_path, protocol):
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({"a": Evil()}, protocol))
    with pytest.raises(WeightsError, match="system"):
        registry.build(stream(tmp_path / "f.pkl"))


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x05.", b"\x80\x04\x95\xff\xff\xff\xff"])
def test_a_damaged_pickle_is_one_line(tmp_path, data):
    (tmp_path / "f.pkl").write_bytes(data)
    with pytest.raises(WeightsError):
        unpickle.load(tmp_path / "f.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_survive_every_protocol(tmp_path, protocol):
    value = {
        "a": VALUES,
        "b": [1, 2.5, "x", None, True],
        "c": {"d": (np.float32(2), {1}, b"x")},
        "e": np.asfortranarray(VALUES),
    }
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(value, protocol))
    got = unpickle.load(tmp_path / "f.pkl")
    np.testing.assert_array_equal(got["a"], VALUES)
    np.testing.assert_array_equal(got["e"], VALUES)
    assert got["b"] == value["b"] and got["c"] == value["c"]


def test_bad_input(tmp_path):
    (tmp_path / "f.docx").write_bytes(b"x")
    (tmp_path / "words.csv").write_text("clip,text\na,hello\n")
    (tmp_path / "f.csv").write_text("clip,x\na,1\n")
    (tmp_path / "broken.h5").write_bytes(b"not hdf5")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "bare.npy", VALUES)
    np.save(tmp_path / "short.npy", VALUES)
    (tmp_path / "short.ids.txt").write_text("a\nb\n")
    np.save(tmp_path / "double.npy", VALUES)
    (tmp_path / "double.ids.txt").write_text("a\nb\na\nc\n")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "object.ids.txt").write_text("a\n")
    for name, words in {
        "f.docx": "not read",
        "words.csv": "numbers",
        "broken.h5": "cannot be read",
        "broken.npz": "half a download",
        "empty": "one per clip",
        "bare.npy": "ids",
        "short.npy": "4 rows and 2 ids",
        "double.npy": "twice",
        "object.npy": "cannot be read",
        "absent.csv": "not there",
    }.items():
        with pytest.raises(WeightsError, match=words):
            registry.build(stream(tmp_path / name))
    for options in ({"id_column": "clop"}, {"columns": ["y"]}, {"start_column": "t"}):
        with pytest.raises(ParamsError, match="column"):
            registry.build(stream(tmp_path / "f.csv", options=options))
    with pytest.raises(ParamsError, match="layer"):
        registry.build(stream(tmp_path / "f.csv", layer=2))


def test_the_cache_key_is_the_clip_not_its_media(tmp_path):
    """Two clips may share their media, or their words, and still differ in what was imported."""
    table = tables.frame([{"id": i, "content": "same", "text": "same"} for i in ("a", "b")])
    csv(tmp_path / "f.csv")
    for modality in ("video", "text"):
        one = stream(tmp_path / "f.csv").model_copy(update={"modality": modality})
        assert len({job.content for job in reader.list_jobs(table, one)}) == 2


def test_real_action_units(real):
    from ruamel.yaml import YAML

    text = (Path(__file__).parents[4] / "conf/stream/ravdess_au.yaml").read_text()
    options = YAML(typ="safe").load(text)["options"]
    extractor = registry.build(stream(real / "ravdess/au_mean.csv", options=options))
    values, _ = get(extractor, "ravdess/03-01-01-01-01-01-01")
    assert values.shape == (1, 35) and values[0, 0] == pytest.approx(0.0719388)
    clips = [f"ravdess/{p.stem}" for p in (real / "ravdess/audio").glob("*/*.flac")]
    report = import_.measure_coverage(extractor, clips)
    assert len(clips) > 1000 and report["covered"] >= 0.9 * len(clips)


@pytest.mark.parametrize("kind", ["external", "virtual", "link", "deep"])
def test_features_that_lie_in_another_file_are_not_read(tmp_path, kind):
    path, other = tmp_path / "f.h5", tmp_path / "secret"
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(300.0)
    with h5py.File(path, "w") as file:
        file["a"] = VALUES[0]
        if kind == "external":
            file.create_dataset("b", (20,), "uint8", external=[("/etc/passwd", 0, 20)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((300,), "float64")
            layout[:] = h5py.VirtualSource(str(other), "x", (300,))
            file.create_virtual_dataset("b", layout)
        elif kind == "link":
            file["b"] = h5py.ExternalLink(str(other), "/x")
        else:
            file["one/two/features"] = h5py.ExternalLink(str(other), "/x")
    with pytest.raises(WeightsError, match="another file|somewhere else") as caught:
        files.read(path, Layout())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_soft_link_within_the_file_does_no_harm(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"], file["loop"], file["alias"] = VALUES[0], h5py.SoftLink("/"), h5py.SoftLink("/a")
    assert list(files.read(tmp_path / "f.h5", Layout())) == ["a"]

"""Stage `index` and the resident data set."""

import os
import shutil
import time

import h5py
import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import ParamsError, StoreError
from pipeline.models.batch import shorten
from pipeline.storage import feature_store, seal, tables
from pipeline.storage.feature_store import Entry, Status, Store
from pipeline.training.data.annotations import interpolate
from pipeline.training.data.dataset import Dataset
from pipeline.training.stage import train

#: As tests/fabricated.py has them.
CLASSES = ("anger", "joy", "neutral", "sadness")


def load(corpus, params=None, fold=0):
    params = params or corpus.params()
    return Dataset.load(corpus.index(params), params=params, fold=fold, **corpus.files)


def test_one_file_shows_everything(fabricate):
    corpus = fabricate()
    with h5py.File(corpus.index()) as file:
        group = file["streams/audio"]
        assert group.get("store", getlink=True).filename == os.path.join("..", "features", "audio.h5")
        assert group["store/values"].shape[1:] == (6,)
        assert [i.decode() for i in group["store/ids"][:]] == corpus.ids
        assert group.attrs["random"] and not file["streams/video"].attrs["random"]
        assert group["mean"].shape == (1, 6)


def test_same_bytes_whenever_it_is_made(fabricate):
    corpus = fabricate(clips=20)
    first = corpus.index().read_bytes()
    time.sleep(1.1)
    assert corpus.index().read_bytes() == first


def test_normalisation_is_of_the_training_rows_only(fabricate):
    corpus = fabricate(folds=5)
    with h5py.File(corpus.index()) as file:
        held = {fold: file["streams/video/mean"][fold] for fold in range(5)}
    store = Store(corpus.path("features/video.h5"))
    for fold in range(5):
        train = corpus.roles.filter((pl.col("fold") == fold) & (pl.col("role") == "train"))["id"]
        rows = np.concatenate([store[clip].values for clip in train]).astype(np.float64)
        np.testing.assert_allclose(held[fold], rows.mean(0), rtol=1e-5)
        data = load(corpus, fold=fold)
        where = torch.cat(
            [data.streams["video"].gather(data.rows("train"))[0][data.streams["video"].gather(data.rows("train"))[1]]]
        )
        values = data.streams["video"].values[where]
        assert values.mean(0).abs().max() < 1e-4 and (values.std(0, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [0, 5, 59])  # clip 0 is tested on
def test_a_store_with_nan_or_infinity_is_one_line(fabricate, value, clip):
    corpus = fabricate()
    store = Store(corpus.path("features/audio.h5"))
    row = int(store.offsets[clip + 1]) - 1
    with h5py.File(store.path, "r+") as file:
        file["values"][row, 3] = value
    with pytest.raises(StoreError) as caught:
        corpus.index()
    assert f"NaN or infinity in row {row}, of clip {corpus.ids[clip]}." in str(caught.value) and "\n" not in str(caught.value)
    assert not corpus.path("data/index.h5").exists()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["anger", "joy", "hapiness"], "Unknown class of task.classes 'hapiness'. "),
        (["joy"], "there is only 'joy'"),
        (["joy", "anger", "joy"], "names 'joy' twice"),
    ],
)
def test_classes_that_teach_nothing_are_one_line(fabricate, classes, said):
    corpus = fabricate()
    with pytest.raises(ParamsError) as caught:
        corpus.index(corpus.params(task={"classes": classes}))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ParamsError) as caught:
        train(corpus.params(task={"classes": classes}), corpus.index(), **corpus.files, out=corpus.path("models/runs"))
    assert said in str(caught.value)
    assert not corpus.path("models/runs").exists()


def relabel(corpus, change):
    table = tables.read(corpus.files["manifest"])
    tables.write(table.with_columns(change), corpus.files["manifest"])


def test_one_emotion_in_the_whole_manifest_is_one_line(fabricate):
    corpus = fabricate()
    relabel(corpus, pl.when(pl.col("emotion").is_null()).then(None).otherwise(pl.lit("joy")).alias("emotion"))
    with pytest.raises(ParamsError, match="there is only 'joy'"):
        corpus.index()
    assert corpus.index(corpus.params(task={"emotion": False})).is_file()


def test_a_class_without_training_clip_in_one_fold(fabricate, caplog):
    """`joy` is left with the clips that fold 2 holds out or selects on."""
    corpus = fabricate(folds=5)
    kept = corpus.roles.filter((pl.col("fold") == 2) & (pl.col("role") != "train"))["id"].to_list()
    joy = (pl.col("emotion") == "joy") & ~pl.col("id").is_in(kept)
    relabel(corpus, pl.when(joy).then(pl.lit("anger")).otherwise("emotion").alias("emotion"))
    said = "fold 2 has no labelled training clip with features of 'joy'"
    asked = corpus.params(task={"classes": ["anger", "joy", "sadness"]})
    with pytest.raises(ParamsError, match=said):
        corpus.index(asked)
    assert not caplog.records
    made = corpus.index()  # nobody asked for it by name: a line tells
    assert [record.message for record in caplog.records] == [f"{said}; it cannot be learned there"]
    with pytest.raises(ParamsError, match=said):
        train(asked, made, **corpus.files, out=corpus.path("models/runs"))


def test_a_class_whose_training_clips_all_lack_features(fabricate):
    corpus = fabricate()
    for name in corpus.widths:
        path = corpus.path(f"features/{name}.h5")
        joy = [CLASSES[kind] == "joy" for kind in corpus.classes]
        with h5py.File(path, "r+") as file:
            file["status"][:] = np.where(joy, int(Status.FAILED), file["status"][:])
            del file.attrs["seal"]
            seal.seal(file)
    with pytest.raises(ParamsError, match="no labelled training clip with features of 'joy'"):
        corpus.index(corpus.params(task={"classes": ["anger", "joy"]}))


def test_missing_and_failed_clips_are_masks(fabricate):
    data = load(fabricate())
    tokens = data.batch(torch.arange(len(data.ids)), ["text", "video"]).streams
    assert not tokens["text"].mask[4].any() and not tokens["video"].mask[7].any()
    assert tokens["text"].mask[0].any()
    assert torch.equal(tokens["text"].present, torch.tensor([i % 9 != 4 for i in range(60)]))
    assert (tokens["video"].values[~tokens["video"].mask] == 0).all()


def test_batch_is_the_store_normalised(fabricate):
    corpus = fabricate()
    data, store = load(corpus), Store(corpus.path("features/audio.h5"))
    rows = torch.tensor([11, 3, 40])
    tokens = data.batch(rows, ["audio"]).streams["audio"]
    for b, row in enumerate(rows.tolist()):
        entry, count = store[corpus.ids[row]], int(tokens.mask[b].sum())
        assert count == len(entry.values)
        raw = tokens.values[b, :count].numpy() * data.streams["audio"].std + data.streams["audio"].mean
        np.testing.assert_allclose(raw, entry.values.astype(np.float32), atol=1e-4)
        np.testing.assert_allclose(tokens.times[b, :count].numpy(), entry.times)


@pytest.mark.parametrize("folds", [1, 5])
def test_test_labels_are_never_there(fabricate, folds):
    corpus = fabricate(folds=folds)
    params = corpus.params(task={"level": "frame"})
    for fold in range(folds):
        data = load(corpus, params, fold)
        test = data.rows("test")
        assert len(test)
        targets = data.targets(test, "audio")
        assert (targets.emotion == -1).all() and targets.dimensions.isnan().all() and targets.frames.isnan().all()
        seen = data.targets(data.rows("train", "val"), "audio")
        assert (seen.emotion >= 0).all() and seen.frames.isfinite().any()


def test_relabelling_the_test_clips_changes_nothing(fabricate):
    corpus = fabricate(folds=5)
    before = load(corpus, fold=2)
    test = set(corpus.roles.filter((pl.col("fold") == 2) & (pl.col("role") == "test"))["id"])
    table = tables.read(corpus.files["manifest"])
    swapped = table.with_columns(
        pl.when(pl.col("id").is_in(list(test))).then(pl.lit("joy")).otherwise("emotion").alias("emotion"),
        pl.when(pl.col("id").is_in(list(test))).then(0.9).otherwise("valence").alias("valence"),
    )
    tables.write(swapped, corpus.files["manifest"])
    after = load(corpus, fold=2)
    names = list(before.streams)
    assert before.fingerprint(names) == after.fingerprint(names)
    assert load(corpus, fold=3).fingerprint(names) != before.fingerprint(names)


def test_all_layers_are_kept(fabricate):
    corpus = fabricate(levels=3)
    data = load(corpus)
    assert data.batch(torch.arange(4), ["audio"]).streams["audio"].values.shape[2:] == (3, 6)
    assert data.streams["audio"].facts["levels"] == 3


def test_coverage_counts(fabricate):
    corpus = fabricate()
    corpus.store("audio", (6,), 0.4, ids=[*corpus.ids[2:], "demo/other"])
    params = corpus.params()
    with h5py.File(corpus.index(params)) as file:
        assert '"absent": 2' in file["streams/audio"].attrs["coverage"]
        assert '"other": 1' in file["streams/audio"].attrs["coverage"]
        assert file["streams/audio/row"][:3].tolist() == [-1, -1, 0]
        assert file["streams/audio/status"][0] == Status.MISSING


def test_store_of_another_corpus(fabricate):
    corpus = fabricate()
    corpus.store("audio", (6,), 0.4, ids=["x/1", "x/2"])
    with pytest.raises(StoreError, match="audio.h5 shares no clip"):
        corpus.index()


def test_store_changed_after_the_index(fabricate):
    corpus = fabricate()
    index = corpus.index()
    corpus.store("audio", (6,), 0.4, ids=corpus.ids[1:])
    with pytest.raises(StoreError, match="has changed"):
        Dataset.load(index, params=corpus.params(), fold=0, **corpus.files)


def test_unknown_fold_and_absent_index(fabricate, tmp_path):
    corpus = fabricate()
    with pytest.raises(StoreError, match="no fold 7"):
        load(corpus, fold=7)
    with pytest.raises(StoreError, match="is not there"):
        Dataset.load(tmp_path / "no.h5", params=corpus.params(), fold=0, **corpus.files)


def test_shorten_averages_neighbours():
    values, times = np.arange(10, dtype=np.float32)[:, None], np.stack([np.arange(10), np.arange(1, 11)], 1)
    short, spans = shorten(values, times, 5)
    assert short[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert spans.tolist() == [[0, 2], [2, 4], [4, 6], [6, 8], [8, 10]]
    assert shorten(values, times, 10)[0] is values


def test_interpolate_between_annotations():
    truth = np.array([[0.0, 0.0, np.nan], [1.0, 1.0, np.nan]])
    out = interpolate(truth, np.array([0.25, 2.0]))
    assert out[:, 0].tolist() == [0.25, 1.0] and np.isnan(out[:, 1]).all()


@pytest.mark.parametrize(("attribute", "stream"), [("text", "audio"), ("video", "text")])
def test_a_store_of_another_modality_is_refused(fabricate, attribute, stream):
    corpus = fabricate(clips=20)
    corpus.index()
    path = corpus.path(f"features/{stream}.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["modality"] = attribute
        del file.attrs["seal"]
        seal.seal(file)
    with pytest.raises(StoreError) as caught:
        corpus.index()
    said = f"{path} holds {attribute} features, but stream '{stream}' is {stream}. Run `dvc repro extract@{stream}`."
    assert str(caught.value) == said


@pytest.mark.parametrize(("shape", "fine"), [((), False), ((6,), True), ((3, 6), True), ((2, 3, 6), False)])
def test_rows_are_vectors_or_layers_of_them(fabricate, shape, fine):
    corpus = fabricate(clips=20)
    entries = [Entry(np.ones((2, *shape), np.float32), np.array([[0, 1], [1, 2]], np.float32)) for _ in corpus.ids]
    path = corpus.path("features/audio.h5")
    feature_store.write(
        path,
        corpus.ids,
        entries,
        rows=[2] * 20,
        shape=shape,
        attributes={"stream": "audio", "modality": "audio", "axis": "layer"},
    )
    if fine:
        assert corpus.index().is_file()
    else:
        with pytest.raises(StoreError, match=r"audio.h5 has rows of shape .*; a stream's rows are \(D,\) or \(N, D\)"):
            corpus.index()


def test_stores_of_dropped_streams_are_gone_and_nothing_else(fabricate, caplog):
    caplog.set_level("INFO")
    corpus = fabricate(clips=20)
    features = corpus.path("features/audio.h5").parent
    (features / "video.stats.json").write_text("{}")
    (features / "notes.h5").write_text("mine")
    shutil.copy(features / "text.h5", features / "copy.h5")  # not named after its stream
    params = corpus.params(streams={n: corpus.params().streams[n].model_dump() for n in ("audio", "text")})
    params = params.model_copy(update={"streams": {n: params.streams[n] for n in ("audio", "text")}})
    made = corpus.index(params)
    assert sorted(path.name for path in features.iterdir()) == ["audio.h5", "copy.h5", "notes.h5", "text.h5"]
    assert [record.message.split()[1:3] for record in caplog.records if "is removed" in record.message] == [["is", "removed:"]]
    with h5py.File(made) as file:
        assert sorted(file["streams"]) == ["audio", "text"]


def test_the_index_points_to_the_folder_and_not_to_what_it_links_to(fabricate):
    """As DVC makes it under `cache.type symlink`: elsewhere the cache is not at that place."""
    corpus = fabricate(clips=20)
    path = corpus.path("features/audio.h5")
    kept = corpus.path("cache/ab/cdef")
    kept.parent.mkdir(parents=True)
    path.rename(kept)
    path.symlink_to(kept)
    with h5py.File(corpus.index()) as file:
        assert file["streams/audio"].get("store", getlink=True).filename == os.path.join("..", "features", "audio.h5")

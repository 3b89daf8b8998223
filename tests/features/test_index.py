"""Stage `index` and the resident data set."""

import os
import time

import h5py
import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import StoreError
from pipeline.models.batch import shorten
from pipeline.storage import tables
from pipeline.storage.feature_store import Status, Store
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.labels import interpolate


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

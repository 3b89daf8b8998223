"""`affectory.load`: the rows of the store, with the labels and folds of the tables beside it."""

import importlib.util
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import affectory
from affectory.features import load
from pipeline.errors import StoreError, UserError
from pipeline.storage.feature_store import Store


@pytest.fixture
def corpus(fabricate):
    return fabricate()


@pytest.fixture
def words(corpus):
    return load(corpus.path("features/text.h5"))


def test_rows_are_those_of_the_store(corpus, words):
    store = Store(corpus.path("features/text.h5"))
    assert list(words) == words.ids == store.ids and len(words) == 60 and words.shape == (5,) and words.dtype == np.float16
    for clip in words:
        np.testing.assert_array_equal(words[clip], store[clip].values)
        np.testing.assert_array_equal(words.times(clip), store[clip].times)
    assert words.status("demo/clip004") == "missing" and words.status("demo/clip000") == "ok"
    assert "demo/clip000" in words and "nobody" not in words
    with pytest.raises(StoreError, match="nobody"):
        words["nobody"]
    assert repr(words) == "Features(text: 53 of 60 clips, rows of 5 float16)"


def test_clips_carry_labels_held_out_ones_too_and_their_part_in_the_fold(corpus, words):
    from_class = dict(zip(corpus.ids, corpus.classes.tolist(), strict=True))
    names = ("anger", "joy", "neutral", "sadness")
    table = words.clips
    assert table["id"].to_list() == words.ids and table["emotion"].to_list() == [names[from_class[clip]] for clip in words.ids]
    roles = dict(corpus.roles.select("id", "role").iter_rows())
    assert table["fold0"].to_list() == [roles[clip] for clip in words.ids] and set(table["fold0"]) == {"train", "val", "test"}
    assert table["rows"].to_list() == [len(words[clip]) for clip in words.ids]
    assert {"speaker", "valence", "duration"} <= set(table.columns) and "content" not in table.columns


def test_a_column_per_fold(fabricate):
    corpus = fabricate(folds=5)
    table = load(corpus.path("features/audio.h5")).clips
    for fold in range(5):
        roles = dict(corpus.roles.filter(pl.col("fold") == fold).select("id", "role").iter_rows())
        assert table[f"fold{fold}"].to_list() == [roles[clip] for clip in table["id"]]


def test_pooled_and_padded(words):
    means, there = words.numpy()
    assert means.shape == (60, 5) and means.dtype == np.float32
    assert there.tolist() == [i % 9 != 4 for i in range(60)]
    np.testing.assert_allclose(means[0], words[words.ids[0]].astype(np.float32).mean(0))
    assert not means[~there].any()
    rows, valid = words.numpy(None, [words.ids[7], words.ids[4]])
    assert rows.shape == (2, len(words[words.ids[7]]), 5) and valid[0].all() and not valid[1].any()
    np.testing.assert_array_equal(rows[0], words[words.ids[7]].astype(np.float32))
    tensors, mask = words.torch()
    assert tensors.shape[:2] == mask.shape and mask.sum().item() == sum(len(words[clip]) for clip in words)
    with pytest.raises(UserError, match="pool 'max'.*mean"):
        words.numpy("max")
    assert words.numpy(ids=[])[0].shape == (0, 5)


def test_a_table_of_rows(words):
    table = words.polars()
    assert len(table) == sum(len(words[clip]) for clip in words)
    clip = words.ids[10]
    mine = table.filter(pl.col("id") == clip)
    np.testing.assert_array_equal(mine["values"].to_numpy(), words[clip].astype(np.float32))
    np.testing.assert_array_equal(np.stack([mine["start"], mine["end"]], 1), words.times(clip))
    assert mine["row"].to_list() == list(range(len(mine))) and mine["emotion"].n_unique() == 1


def test_a_data_set_of_hugging_face(words):
    if importlib.util.find_spec("datasets") is None:
        with pytest.raises(UserError, match="pip install datasets"):
            words.dataset()
        return
    examples = words.dataset()
    assert examples.num_rows == 60 and examples[0]["id"] == words.ids[0]
    np.testing.assert_allclose(examples[0]["values"], words[words.ids[0]].astype(np.float32))


def test_a_store_without_tables_has_no_labels(corpus, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features/text.h5").write_bytes(corpus.path("features/text.h5").read_bytes())
    assert load(tmp_path / "features/text.h5").clips.columns == ["id", "status", "rows"]
    beside = load(tmp_path / "features/text.h5", data=corpus.path("data"))
    assert "emotion" in beside.clips.columns
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.parquet").write_text("no table")
    with pytest.raises(StoreError, match="manifest.parquet cannot be read"):
        _ = load(tmp_path / "features/text.h5").clips


def test_the_names_there_are_and_no_torch_for_features(corpus):
    assert set(affectory.__all__) <= set(dir(affectory)) and affectory.load is load
    assert all(getattr(affectory, name) is not None for name in affectory.__all__)
    with pytest.raises(AttributeError, match="affectory has no Loader; it has Features, Predictor, Stream"):
        affectory.Loader  # noqa: B018
    code = (
        f"import sys, affectory; affectory.load({str(corpus.path('features/text.h5'))!r}).clips; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

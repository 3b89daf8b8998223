"""Several corpora as one, from their folders to folds."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

from pipeline.data import build
from pipeline.data.corpora import open_corpus
from pipeline.data.corpora.adapter import Tables
from pipeline.data.join import Member, join_corpora
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus

CROSS = {"kind": "leave_one_out", "group": "corpus", "val_group": "speaker", "val": 0.25}


@pytest.fixture(scope="module")
def replicas():
    # Loaded by path: test folders are not packages.
    place = Path(__file__).with_name("corpora") / "replicas.py"
    specification = importlib.util.spec_from_file_location("replicas", place)
    module = sys.modules["replicas"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.REPLICAS


@pytest.fixture
def root(tmp_path, replicas):
    """EMO-DB and RAVDESS below one folder; one speaker of EMO-DB is bored."""
    for name in ("emo_db", "ravdess"):
        replicas[name](tmp_path / "corpora" / name)
    wav = tmp_path / "corpora/emo_db/wav"
    (wav / "03a01Na.wav").rename(wav / "03a01La.wav")
    return tmp_path / "corpora"


def options(**more):
    return {"corpora": {"emo_db": {}, "ravdess": {"options": {"channel": "speech"}}}} | more


def test_from_two_folders_to_folds(root, tmp_path, settings):
    params = settings("joined", root, options(), protocol=CROSS)
    open_corpus(params.corpus).prepare(tmp_path / "data/corpus")
    assert "ravdess: CC BY-NC-SA 4.0" in (tmp_path / "data/corpus/source.json").read_text()
    build.build_manifest(params, tmp_path / "data")
    table, folds, lost = (pl.read_parquet(tmp_path / f"data/{name}.parquet") for name in ("manifest", "folds", "quarantine"))
    assert dict(table["corpus"].value_counts().iter_rows()) == {"emo_db": 11, "ravdess": 12}
    assert table["id"].n_unique() == 23 and all(row["id"].startswith(f"{row['corpus']}/") for row in table.to_dicts())
    assert all((root / path).is_file() for path in table["audio"])
    assert table["audio"].str.starts_with("ravdess/Actor_").sum() == 12
    truth = dict(table.select("id", "emotion").iter_rows())
    assert truth["ravdess/03-01-03-01-01-01-01"] == truth["emo_db/08a01Fa"] == "joy"
    assert set(truth.values()) == {"joy", "sadness", "anger", "neutral"}
    own = table.filter(pl.col("id") == "ravdess/03-01-03-01-01-01-01")["labels"][0]
    assert json.loads(own)["emotion"] == "happy" and json.loads(own)["intensity"] == "normal"
    # What has no counterpart is named, clip by clip and in the card.
    assert lost.select("id", "reason", "media").rows() == [("emo_db/03a01La", "surplus", "emo_db/wav/03a01La.wav")]
    assert "boredom has no common name" in lost["detail"][0]
    card = json.loads((tmp_path / "data/card.json").read_text())
    assert card["notes"]["clips that lost an emotion without a counterpart"] == {"emo_db": {"boredom": 1}}
    assert card["notes"]["emotions by their common names"]["ravdess"] == {"happy": "joy", "sad": "sadness"}
    assert card["speakers"] == 4 + 6 and card["licence"].startswith("emo_db: ") and card["leaks"] == []
    roles = folds.join(table.select("id", "corpus", "speaker"), on="id")
    assert folds["fold"].n_unique() == 2
    for _, fold in roles.group_by("fold"):
        part = {role: fold.filter(pl.col("role") == role) for role in ("train", "val", "test")}
        assert part["test"]["corpus"].n_unique() == 1 and not part["val"].is_empty()
        assert part["test"]["corpus"][0] not in {*part["train"]["corpus"], *part["val"]["corpus"]}
        assert not set(part["train"]["speaker"]) & set(part["val"]["speaker"])


def test_corpora_without_a_common_class_are_one_line_of_the_stage(root, tmp_path, settings):
    """Neutral and angry here, happy and sad there: nothing is decoded for a test that can say nothing."""
    for path in (root / "emo_db/wav").glob("*Fa.wav"):
        path.unlink()
    params = settings("joined", root, options(), protocol={"kind": "cross", "val": 0.25})
    with pytest.raises(
        CorpusError, match="'emo_db → ravdess' trains on anger, neutral and tests joy, sadness: no class"
    ) as caught:
        build.build_manifest(params, tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_one_recording_in_two_corpora_is_seen(root, tmp_path, settings):
    shutil.copy(root / "emo_db/wav/08a01Fa.wav", root / "ravdess/Actor_01/03-01-03-01-01-01-01.wav")
    (root / "ravdess/Actor_01/01-01-03-01-01-01-01.mp4").unlink()
    build.build_manifest(settings("joined", root, options(), protocol=CROSS), tmp_path / "data")
    lost = pl.read_parquet(tmp_path / "data/quarantine.parquet").filter(pl.col("reason") == "duplicate")
    assert lost.select("id", "detail").rows() == [("ravdess/03-01-03-01-01-01-01", "same media and cut as emo_db/08a01Fa")]


def test_classes_are_kept_by_their_common_names(root):
    tables = open_corpus(Corpus(name="joined", root=str(root), options=options(classes=["joy"]))).read()
    assert {clip["emotion"] for clip in tables.clips} == {"joy"}
    assert tables.notes["clips that lost an emotion without a counterpart"]["ravdess"] == {"sad": 6}
    assert sum("sad is sadness, not among" in problem["detail"] for problem in tables.problems) == 6
    assert len(tables.clips) + len(tables.problems) == 24


def test_other_labels_keep_a_clip_and_rows_move_with_it():
    one = Tables(
        [
            {"id": "a/1", "emotion": "boredom", "valence": 0.5, "video": "x/1.mp4", "speaker": "7", "where": "t.csv, line 2"},
            {"id": "other/2", "sentiment": "positive", "audio": "2.wav"},
        ],
        annotations=[{"id": "a/1", "time": 0.1, "valence": 0.2, "arousal": None}],
        problems=[{"id": "a/9", "media": "9.mp4", "stage": "manifest", "reason": "row", "detail": "?"}],
    )
    joined = join_corpora({"a": Member("one/a", one), "b": Member("b", Tables([{"id": "a/1", "speaker": "7", "text": "x"}]))})
    assert [clip["id"] for clip in joined.clips] == ["a/1", "a/other/2", "b/a/1"]
    assert [clip.get("speaker") for clip in joined.clips] == ["a/7", None, "b/7"]
    assert joined.clips[0]["emotion"] is None and joined.clips[0]["video"] == "one/a/x/1.mp4"
    assert joined.clips[0]["where"] == "a: t.csv, line 2" and joined.clips[1]["audio"] == "one/a/2.wav"
    assert joined.annotations[0]["id"] == "a/1" and joined.problems[0]["media"] == "one/a/9.mp4"


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"corpora": {}}, ParamsError, "corpus.options.corpora: "),
        ({"corpora": {"ravdes": {}}}, CorpusError, "Unknown corpus 'ravdes'. Did you mean 'ravdess'?"),
        (
            {"corpora": {"ravdess": {"options": {"chanel": "song"}}}},
            ParamsError,
            "corpus.options.corpora.ravdess.options 'chanel'",
        ),
        ({"corpora": {"ravdess": {"rot": "x"}}}, ParamsError, "corpora.ravdess 'rot'. Did you mean 'root'?"),
        ({"corpora": {"ravdess": {"root": "/elsewhere"}}}, ParamsError, "/elsewhere is not below corpus.root"),
        ({"corpora": {"ravdess": {"root": "../x"}}}, ParamsError, "../x is not below corpus.root"),
        ({"corpora": {"ravdess": {}}, "classes": ["happy"]}, ParamsError, "Unknown class of corpus.options.classes 'happy'"),
    ],
)
def test_a_mistake_is_one_line(root, values, error, said):
    with pytest.raises(error) as caught:
        open_corpus(Corpus(name="joined", root=str(root), options=values)).read()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_absolute_folder_below_the_root_and_a_corpus_under_two_names(root):
    corpora = {"adults": {"name": "ravdess", "root": str(root.absolute() / "ravdess")}, "ravdess": {}}
    tables = open_corpus(Corpus(name="joined", root=str(root), options={"corpora": corpora})).read()
    assert tables.notes["clips per corpus"] == {"adults": 12, "ravdess": 12}
    assert len({clip["id"] for clip in tables.clips}) == 24 and len({clip["audio"] for clip in tables.clips}) == 12


def test_a_folder_that_is_not_there(root, tmp_path):
    corpus = Corpus(name="joined", root=str(root), options={"corpora": {"meld": {}}})
    with pytest.raises(CorpusError, match="corpora/meld is not a folder. Put MELD.*corpus.options.corpora.meld.root"):
        open_corpus(corpus).prepare(tmp_path / "out")

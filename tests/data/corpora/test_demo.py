"""The adapter of the embedded corpus."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import params
from pipeline.data.corpora.demo import Demo
from pipeline.errors import CorpusError, ParamsError
from pipeline.storage import tables as manifest

ROOT = Path(__file__).resolve().parents[3]
TINY = {"sessions": 2, "dialogues": 2, "turns": 3, "size": 48, "fps": 8, "shortest": 0.6, "longest": 0.8,
        "no_text": 0.17, "no_sound": 0.17, "no_picture": 0}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    made = params.Corpus(name="demo", root=str(folder), options=TINY)
    Demo(made).prepare(folder)
    return made


def test_rows_fit_the_manifest(corpus):
    tables = Demo(corpus).read()
    clips = manifest.frame(tables.clips)
    assert clips.height == 6 and clips["id"].n_unique() == 6
    assert set(tables.clips[0]) <= set(manifest.SCHEMA)
    assert clips["corpus"].unique().to_list() == ["demo"]
    assert clips["split"].null_count() == 6
    assert clips["text"].null_count() == clips["audio"].null_count() == 1
    assert set(clips["emotion"]) <= set(Demo.classes)
    assert clips["speaker"].n_unique() == 4
    frames = manifest.frame(tables.annotations, manifest.ANNOTATIONS)
    assert set(frames["id"]) == set(clips["id"])
    assert tables.notes["without sound"] == 1


def test_media_are_there(corpus):
    for clip in Demo(corpus).read().clips:
        assert (Path(corpus.root) / clip["video"]).is_file()
        assert clip["audio"] in (None, clip["video"])


def test_a_corpus_that_was_not_made_says_what_to_do(tmp_path):
    with pytest.raises(CorpusError, match="dvc repro corpus"):
        Demo(params.Corpus(name="demo", root=str(tmp_path / "none"))).read()


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda text: text.replace("valence", "valenz", 1), "columns"),
        (lambda text: text.replace("demo/s00/d00_t01,", "demo/s00/d00_t01,extra,", 1), "line 3"),
        (lambda text: text.splitlines()[0] + "\n", "no clips"),
    ],
)
def test_a_damaged_table_is_one_line(corpus, tmp_path, damage, match):
    for name in ("clips.csv", "annotations.csv"):
        (tmp_path / name).write_text((Path(corpus.root) / name).read_text(encoding="utf-8"), encoding="utf-8")
    table = tmp_path / "clips.csv"
    table.write_text(damage(table.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(CorpusError, match=match) as caught:
        Demo(params.Corpus(name="demo", root=str(tmp_path))).read()
    assert "\n" not in str(caught.value) and "clips.csv" in str(caught.value)


def test_unknown_options_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ParamsError, match="clipz"):
        Demo(params.Corpus(name="demo", root="x", options={"clipz": 1})).prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_group_is_a_valid_corpus():
    text = (ROOT / "conf" / "corpus" / "demo.yaml").read_text(encoding="utf-8")
    corpus = params.Corpus.model_validate(YAML(typ="safe", pure=True).load(text))
    assert corpus.name == Demo.name
    assert Demo(corpus).options.clips >= 240

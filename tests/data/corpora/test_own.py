"""A corpus of one's own is one file, with its options and facts, and nothing is listed anywhere: the documented one."""

from __future__ import annotations

import sys

import polars as pl
import pytest

from pipeline.data import build, corpora
from pipeline.data.corpora import page
from pipeline.errors import CorpusError, ParamsError


@pytest.fixture
def mine(tmp_path, tone, monkeypatch):
    place = tmp_path / "parts" / "corpora" / "mine.py"
    place.parent.mkdir(parents=True)
    place.write_text(page.EXAMPLE)
    for at, speaker in enumerate("abcdef"):
        for emotion in ("happy", "sad"):
            tone(tmp_path / f"corpus/{speaker}_{emotion}.wav", frequency=200 + 40 * at + 7 * len(emotion))
    monkeypatch.setenv("AFFECTORY_PARTS", str(tmp_path / "parts"))
    monkeypatch.setattr(corpora, "__path__", list(corpora.__path__))
    yield tmp_path / "corpus"
    sys.modules.pop("pipeline.data.corpora.mine", None)
    if hasattr(corpora, "mine"):
        del corpora.mine


def test_a_manifest_is_built_with_it(mine, tmp_path, settings):
    build.build_manifest(
        settings("mine", mine, {"most": 10}, protocol={"kind": "kfold", "folds": 2, "val": 0.2}), tmp_path / "data"
    )
    table = pl.read_parquet(tmp_path / "data/manifest.parquet")
    assert table.height == 10 and set(table["emotion"]) == {"happy", "sad"} and table["speaker"].n_unique() == 5
    assert pl.read_parquet(tmp_path / "data/folds.parquet")["fold"].n_unique() == 2
    assert "mine" in corpora.names() and corpora.find_adapter("mine").name == "mine"
    with pytest.raises(ParamsError, match="Unknown parameter of corpus.options 'mots'. Did you mean 'most'"):
        corpora.open_corpus(settings("mine", mine, {"mots": 1}).corpus)


@pytest.mark.parametrize("name", ["mine", "table", "acted", "adapter", "msp"])
def test_what_is_no_corpus_is_not_taken_for_one(name):
    with pytest.raises(CorpusError, match=f"Unknown corpus '{name}'.*Known: afew_va, ch_sims, .*ravdess") as caught:
        corpora.find_adapter(name)
    assert "\n" not in str(caught.value) and name not in corpora.names()

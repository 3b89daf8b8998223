"""Overlaps between splits: found, counted, stopped or reported."""

from __future__ import annotations

import polars as pl
import pytest

from pipeline.data import leakage
from pipeline.data.split import FOLDS
from pipeline.errors import LeakageError, ParamsError
from pipeline.params import Protocol
from pipeline.storage import tables


def clips(**columns: list) -> pl.DataFrame:
    count = len(next(iter(columns.values())))
    return tables.frame([{"id": f"c{i}", **{k: v[i] for k, v in columns.items()}} for i in range(count)])


def folds(*roles: str) -> pl.DataFrame:
    return pl.DataFrame({"id": [f"c{i}" for i in range(len(roles))], "fold": [0] * len(roles), "role": list(roles)}, schema=FOLDS)


def test_a_shared_speaker_is_found_with_what_it_affects():
    found = leakage.find_leaks(
        clips(speaker=["a", "b", "a", "a", "c"]), folds("train", "train", "test", "test", "test"), ("speaker",)
    )
    assert len(found) == 1
    leak = found[0]
    assert (leak.column, leak.splits, leak.values, leak.clips, leak.examples) == ("speaker", ("train", "test"), 1, 2, ("a",))
    assert leak.share == pytest.approx(2 / 3)


def test_nulls_overlap_with_nothing_and_text_has_no_media():
    table = clips(speaker=[None, None], content=["same", "same"], video=[None, None])
    assert leakage.find_leaks(table, folds("train", "test"), ("speaker", "content")) == []
    table = clips(content=["same", "same"], audio=["a.wav", "b.wav"])
    assert leakage.find_leaks(table, folds("train", "test"), ("content",))[0].clips == 1


def test_a_constant_column_is_a_leak_not_a_group():
    assert leakage.find_leaks(clips(session=["1", "1"]), folds("train", "test"), ("session",))


def test_stop_names_column_splits_count_and_examples():
    found = leakage.find_leaks(clips(speaker=["a", "a"]), folds("train", "test"), ("speaker",))
    with pytest.raises(LeakageError, match="train and test share 1 values of speaker .a.; 1 test clips") as caught:
        leakage.enforce(found, Protocol())
    assert "\n" not in str(caught.value)
    leakage.enforce(found, Protocol(on_leak="report"))
    leakage.enforce([], Protocol())


def test_an_unknown_column_is_one_line():
    with pytest.raises(ParamsError, match="actor is not a manifest column"):
        leakage.find_leaks(clips(speaker=["a"]), folds("train"), ("actor",))


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ("I have no idea!", "i have no IDEA", True),
        ("Are you going there?", "you are going there", True),
        ("Déjà vu all over", "deja vu all over.", True),
        ("What?", "What?", False),
        ("I have no idea", "I have no money", False),
        ("我真的不知道", "我真的不知道。", True),
    ],
)
def test_near_identical_text(first, second, near):
    found = leakage.find_similar_texts(clips(text=[first, second]), folds("train", "test"))
    assert bool(found) is near
    if near:
        assert found[0].sentence() == "1 test clips (100.0%) say a sentence that train clips say too (1 sentences)"


def test_worst_keeps_the_fold_where_most_is_affected():
    leaks = [leakage.Leak("speaker", f, ("train", "test"), 1, n, 0.1, ("a",)) for f, n in ((0, 1), (1, 5), (2, 3))]
    assert [leak.fold for leak in leakage.keep_worst(leaks)] == [1]

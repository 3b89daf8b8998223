"""Protocols: groups stay together, classes are spread, the seed decides."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import split
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Protocol
from pipeline.storage import tables


def table(speakers: list[str | None], emotions: list[str] | None = None, **more: list) -> pl.DataFrame:
    emotions = emotions or [("happy", "sad")[i % 2] for i in range(len(speakers))]
    return tables.frame(
        [
            {"id": f"c{i:04}", "speaker": s, "emotion": e, **{k: v[i] for k, v in more.items()}}
            for i, (s, e) in enumerate(zip(speakers, emotions, strict=True))
        ]
    )


def roles(clips: pl.DataFrame, folds: pl.DataFrame, fold: int = 0) -> dict[str, set]:
    joined = folds.filter(pl.col("fold") == fold).join(clips, on="id")
    return {role: set(joined.filter(pl.col("role") == role)["speaker"]) for role in split.ROLES}


PROTOCOLS = [Protocol(), Protocol(kind="kfold", folds=3), Protocol(kind="leave_one_out"), Protocol(stratify=False)]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: f"{p.kind}-{p.stratify}")
@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=4, max_size=12), seed=st.integers(0, 3))
def test_groups_never_straddle_and_every_clip_has_one_role(protocol, sizes, seed):
    clips = table([f"s{i}" for i, size in enumerate(sizes) for _ in range(size)])
    folds = split.make_folds(clips, protocol.model_copy(update={"seed": seed}))
    for fold in folds["fold"].unique():
        part = roles(clips, folds, fold)
        assert not part["train"] & part["val"] and not part["train"] & part["test"] and not part["val"] & part["test"]
        assert all(part.values()), "a role is empty"
        ids = folds.filter(pl.col("fold") == fold)["id"].to_list()
        assert sorted(ids) == clips["id"].to_list()
    if not split.is_single(folds):
        tested = folds.filter(pl.col("role") == "test")["id"].to_list()
        assert sorted(tested) == clips["id"].to_list(), "each clip is tested exactly once"


@pytest.mark.parametrize("kind", ["kfold", "leave_one_out"])
def test_validation_by_another_column(kind):
    """Two corpora: one is left out, speakers of the other are trained on and selected on."""
    clips = table([f"s{i % 8}" for i in range(80)], corpus=[("a", "b")[i % 8 < 4] for i in range(80)])
    folds = split.make_folds(clips, Protocol(kind=kind, folds=2, group="corpus", val_group="speaker", val=0.125))
    for fold in (0, 1):
        part = roles(clips, folds, fold)
        assert len(part["val"]) == 1 and len(part["train"]) == 3 and len(part["test"]) == 4
    with pytest.raises(CorpusError, match="corpus has 1 groups"):
        split.make_folds(clips, Protocol(kind=kind, folds=2, group="corpus"))
    with pytest.raises(ParamsError, match="protocol.val_group: actor is not"):
        split.make_folds(clips, Protocol(kind=kind, folds=2, group="corpus", val_group="actor"))


def test_a_seed_gives_one_split_and_another_seed_another():
    clips = table([f"s{i % 20}" for i in range(200)])
    one, same, other = (split.make_folds(clips, Protocol(seed=s)) for s in (0, 0, 1))
    assert one.equals(same)
    assert not one.equals(other)


def test_shares_and_classes_are_near_what_was_asked():
    rng = np.random.default_rng(0)
    speakers = [f"s{i}" for i in rng.integers(0, 60, 3000)]
    emotions = rng.choice(["a", "b", "c"], 3000, p=[0.7, 0.2, 0.1]).tolist()
    clips = table(speakers, emotions)
    joined = split.make_folds(clips, Protocol(val=0.1, test=0.2)).join(clips, on="id")
    for role, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        part = joined.filter(pl.col("role") == role)
        assert part.height / 3000 == pytest.approx(share, abs=0.02)
        for emotion, rate in (("a", 0.7), ("b", 0.2), ("c", 0.1)):
            assert (part["emotion"] == emotion).mean() == pytest.approx(rate, abs=0.05)


def test_leave_one_out_has_a_fold_per_group_with_nested_validation():
    clips = table([f"s{i % 5}" for i in range(50)])
    folds = split.make_folds(clips, Protocol(kind="leave_one_out", val=0.2))
    assert folds["fold"].n_unique() == 5
    tested = [roles(clips, folds, fold)["test"] for fold in range(5)]
    assert all(len(t) == 1 for t in tested) and set.union(*tested) == {f"s{i}" for i in range(5)}
    assert all(len(roles(clips, folds, fold)["val"]) == 1 for fold in range(5))


def test_official_is_the_corpus_own_and_draws_validation_where_there_is_none():
    speakers = [f"s{i}" for i in range(40)]
    given_ = ["train"] * 30 + ["test"] * 10
    clips = table(speakers, split=given_)
    folds = split.make_folds(clips, Protocol(kind="official"))
    joined = folds.join(clips, on="id")
    assert set(joined.filter(pl.col("role") == "test")["split"]) == {"test"}
    assert set(joined.filter(pl.col("role") == "val")["split"]) == {"train"}
    full = table(speakers, split=["train"] * 20 + ["val"] * 10 + ["test"] * 10)
    joined = split.make_folds(full, Protocol(kind="official")).join(full, on="id")
    assert (joined["role"] == joined["split"]).all()


def test_clips_without_a_group_are_their_own():
    clips = table(["s0", "s1", "s2", "s3", *[None] * 6])
    assert split.make_folds(clips, Protocol()).height == 10
    # What is left to train on may have no group at all.
    folds = split.make_folds(table([*["s0"] * 8, None, None]), Protocol(val=0.7, test=0.1, stratify=False))
    assert folds.filter(pl.col("role") != "test")["part"].null_count() == 0


PARTED = [*PROTOCOLS, Protocol(kind="kfold", folds=2, group="corpus", val_group="speaker", val=0.1)]


@pytest.mark.parametrize("protocol", PARTED, ids=lambda p: f"{p.kind}-{p.group}-{p.stratify}")
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=6, max_size=16), seed=st.integers(0, 3))
def test_every_clip_not_tested_is_in_one_validation_part_and_groups_never_straddle(protocol, sizes, seed):
    """Part 0 is validation as drawn; the roles do not depend on there being others."""
    speakers = [f"s{i}" for i, size in enumerate(sizes) for _ in range(size)]
    clips = table(speakers, corpus=["ab"[int(name[1:]) % 2] for name in speakers])
    folds = split.make_folds(clips, protocol.model_copy(update={"seed": seed})).join(clips, on="id")
    assert folds.filter(pl.col("role") == "test")["part"].null_count() == (folds["role"] == "test").sum()
    assert ((folds["role"] == "val") == (folds["part"].fill_null(-1) == 0)).all()
    for _, rows in folds.filter(pl.col("role") != "test").group_by("fold"):
        assert rows.group_by("speaker").agg(pl.col("part").n_unique())["part"].to_list() == [1] * rows["speaker"].n_unique()
        parts = sorted(rows["part"].unique())
        assert parts == list(range(len(parts))) and len(parts) >= 2


def test_validation_parts_are_as_many_as_have_the_size_of_validation_and_hold_every_class():
    rng = np.random.default_rng(0)
    clips = table([f"s{i % 24}" for i in range(1440)], rng.choice(["a", "b", "c"], 1440, p=[0.6, 0.3, 0.1]).tolist())
    folds = split.make_folds(clips, Protocol(kind="kfold", folds=6, val=1 / 6)).join(clips, on="id")
    for _, rows in folds.filter(pl.col("part").is_not_null()).group_by("fold"):
        parts = rows.group_by("part").agg(pl.len(), pl.col("speaker").n_unique(), rare=(pl.col("emotion") == "c").mean())
        assert parts["part"].sort().to_list() == [0, 1, 2, 3, 4]
        assert set(parts["speaker"]) == {4} and set(parts["len"]) == {240}
        assert parts["rare"].is_between(0.06, 0.14).all()
    # Two speakers beside the one tested: one part each, and as many parts as there are speakers.
    folds = split.make_folds(table(["a"] * 9 + ["b"] * 9 + ["c"] * 2), Protocol(kind="leave_one_out", val=0.01))
    assert folds.group_by("fold").agg(pl.col("part").max())["part"].to_list() == [1, 1, 1]


@pytest.mark.parametrize(
    ("protocol", "split_"),
    [(Protocol(kind="official"), ["train"] * 20 + ["val"] * 10 + ["test"] * 10), (Protocol(val=0.0), None)],
)
def test_validation_of_the_corpus_own_and_none_at_all_have_no_parts(protocol, split_):
    clips = table([f"s{i}" for i in range(40)], **({"split": split_} if split_ else {}))
    folds = split.make_folds(clips, protocol)
    assert folds.schema["part"] == pl.Int32 and folds["part"].null_count() == 40
    # Without groups nothing can be drawn, and nothing need be.
    nobody = table([None] * 40, split=["train"] * 30 + ["test"] * 10)
    assert split.make_folds(nobody, Protocol(kind="official", val=0.0))["part"].null_count() == 40
    drawn = split.make_folds(table([f"s{i}" for i in range(40)], split=["train"] * 30 + ["test"] * 10), Protocol(kind="official"))
    assert drawn["part"].max() == 4 and drawn.filter(pl.col("part") == 0)["role"].unique().to_list() == ["val"]


@pytest.mark.parametrize(
    ("clips", "protocol", "error", "said"),
    [
        (table(["a", "b"]), Protocol(), CorpusError, "has 2 groups, 3 are needed"),
        (table([None, None, None]), Protocol(), CorpusError, "no clip of this corpus has a speaker"),
        (table(["a", "b"]), Protocol(group="actor"), ParamsError, "actor is not a manifest column"),
        (table(["a", "b"]), Protocol(kind="official"), CorpusError, "2 clips have no official split"),
        (table(["a"], split=["train"]), Protocol(kind="official"), CorpusError, "no test clips"),
        (table(["a", "a"]), Protocol(kind="leave_one_out"), CorpusError, "one group"),
        (table(["a", "b", "c"]), Protocol(val=0.5, test=0.5), ParamsError, "leave clips to train on"),
    ],
)
def test_an_impossible_protocol_is_one_line(clips, protocol, error, said):
    with pytest.raises(error, match=said) as caught:
        split.make_folds(clips, protocol)
    assert "\n" not in str(caught.value)

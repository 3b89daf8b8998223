"""Folds from a file, and protocols that cannot be had: through the stage that makes them."""

from __future__ import annotations

import json
import logging

import polars as pl
import pytest

from pipeline.data import build, coverage, split
from pipeline.errors import CorpusError, LeakageError, ParamsError, UserError
from pipeline.params import Protocol
from pipeline.storage import tables

#: Six actors in three folds, two each.
FOLDS = {f"actor_{n:02}": str(1 + (n - 1) // 2) for n in range(1, 7)}


@pytest.fixture
def corpus(tmp_path, tone):
    """Six actors of RAVDESS, two emotions, two statements each."""
    root = tmp_path / "corpus"
    for actor in range(1, 7):
        for emotion in (3, 4):
            for statement in (1, 2):
                name = f"Actor_{actor:02}/03-01-{emotion:02}-01-0{statement}-01-{actor:02}.wav"
                tone(root / name, frequency=200 + 40 * actor + 7 * emotion + statement)
    return root


@pytest.fixture
def built(corpus, tmp_path, settings):
    """(**protocol) → folds with speakers, quarantine and card of the real stage."""

    def make(**protocol):
        build.build_manifest(settings("ravdess", corpus, protocol=protocol), tmp_path / "data")
        table = pl.read_parquet(tmp_path / "data/manifest.parquet")
        folds = pl.read_parquet(tmp_path / "data/folds.parquet").join(table.select("id", "speaker", "emotion"), on="id")
        return folds, pl.read_parquet(tmp_path / "data/quarantine.parquet"), json.loads((tmp_path / "data/card.json").read_text())

    return make


def csv_of(rows: dict[str, str], head: str = "speaker,fold") -> str:
    return "\n".join([head, *(f"{value},{fold}" for value, fold in rows.items())]) + "\n"


def held_out(folds: pl.DataFrame) -> dict[str, set[str]]:
    rows = folds.filter(pl.col("role") == "test").group_by("name").agg(pl.col("speaker").unique()).iter_rows()
    return {name: set(speakers) for name, speakers in rows}


EXPECTED = {"fold 1": {"actor_01", "actor_02"}, "fold 2": {"actor_03", "actor_04"}, "fold 3": {"actor_05", "actor_06"}}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "lists.json", "pairs.json", "parquet"])
def test_folds_by_actor_in_every_layout(built, tmp_path, suffix):
    path = tmp_path / f"folds.{suffix}"
    rows = [{"speaker": speaker, "fold": int(fold)} for speaker, fold in FOLDS.items()]
    lists = {fold: [s for s, f in FOLDS.items() if f == fold] for fold in "123"}
    written = {
        "csv": "\ufeff" + csv_of(FOLDS),
        "tsv": csv_of(FOLDS).replace(",", "\t"),
        "jsonl": "\n".join(map(json.dumps, rows)),
        "json": json.dumps(rows),
        "lists.json": json.dumps(lists),
        "pairs.json": json.dumps(FOLDS),
    }
    if suffix == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text(written[suffix], encoding="utf-8")
    folds, lost, _ = built(kind="file", file=str(path), val=0.2)
    assert held_out(folds) == EXPECTED and not lost.height
    assert folds["fold"].unique().sort().to_list() == [0, 1, 2]
    for _, part in folds.group_by("fold"):
        speakers = {role: set(part.filter(pl.col("role") == role)["speaker"]) for role in split.ROLES}
        assert len(speakers["val"]) == 1 and len(speakers["train"]) == 3, "validation is nested in the training groups"
        assert part.height == 24 and not speakers["val"] & (speakers["train"] | speakers["test"])


def test_names_of_folds_stay_and_ten_comes_after_nine(built, tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text(csv_of(dict(zip(FOLDS, ["men", "men", "women", "women", "others", "others"], strict=True))))
    folds, _, _ = built(kind="file", file=str(path))
    assert set(held_out(folds)) == {"men", "women", "others"}
    path.write_text(csv_of(dict(zip(FOLDS, ["9", "9", "10", "10", "11", "11"], strict=True))))
    folds, _, _ = built(kind="file", file=str(path))
    assert dict(folds.select("fold", "name").unique().iter_rows()) == {0: "fold 9", 1: "fold 10", 2: "fold 11"}


def test_roles_clip_by_clip(built, corpus, tmp_path):
    """One fold with roles of its own is one split: its test labels are held out for good."""
    roles = {1: "train", 2: "train", 3: "train", 4: "val", 5: "test", 6: "test"}
    rows = [
        {"id": f"ravdess/{path.stem}", "fold": "mine", "role": roles[int(path.stem[-2:])]}
        for path in sorted(corpus.rglob("*.wav"))
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "folds.csv")
    folds, _, _ = built(kind="file", file=str(tmp_path / "folds.csv"))
    assert {role: set(part["speaker"]) for (role,), part in folds.group_by("role")} == {
        "train": {"actor_01", "actor_02", "actor_03"},
        "val": {"actor_04"},
        "test": {"actor_05", "actor_06"},
    }
    table = pl.read_parquet(tmp_path / "data/manifest.parquet")
    assert table.filter(pl.col("split") == "test")["emotion"].null_count() == 8
    assert pl.read_parquet(tmp_path / "data/truth.parquet").height == 8


def test_a_clip_of_no_fold_and_a_name_of_no_clip_are_told(built, tmp_path, caplog):
    path = tmp_path / "folds.csv"
    path.write_text(csv_of({s: f for s, f in FOLDS.items() if s != "actor_06"} | {"actor_99": "3"}))
    with caplog.at_level(logging.WARNING):
        folds, lost, card = built(kind="file", file=str(path))
    assert "actor_06" not in set(folds["speaker"])
    assert lost["reason"].to_list() == ["no_fold"] * 4 and all(clip.endswith("-06") for clip in lost["id"])
    assert card["notes"]["speaker of protocol.file that no clip has"] == "actor_99" and card["quarantine"] == {"no_fold": 4}
    assert "names speaker of no clip: actor_99" in caplog.text


def test_a_speaker_in_two_folds_is_a_leak(built, corpus, tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text(csv_of(FOLDS) + "actor_01,3\n")
    with pytest.raises(LeakageError, match=r"speaker actor_01 is in folds 1 and 3; it may be in one alone"):
        built(kind="file", file=str(path))
    path.write_text("speaker,fold,role\nactor_01,a,train\nactor_01,a,test\nactor_02,a,test\n")
    with pytest.raises(LeakageError, match="actor_01 is both train and test in fold a"):
        built(kind="file", file=str(path))
    # Clip by clip, a speaker on both sides is a leak as in any protocol.
    rows = {f"ravdess/{clip.stem}": str(i % 2) for i, clip in enumerate(sorted(corpus.rglob("*.wav")))}
    path.write_text(csv_of(rows, "id,fold"))
    with pytest.raises(LeakageError, match="train and test share .* values of"):
        built(kind="file", file=str(path))
    folds, _, card = built(kind="file", file=str(path), on_leak="report", group="id")
    assert folds["fold"].n_unique() == 2 and card["leaks"]


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ("", CorpusError, "holds no rows"),
        ("speaker,fold\n", CorpusError, "holds no rows"),
        ("actor,fold\n1,1\n", CorpusError, r"has columns actor, fold; expected `id` or `speaker` \(protocol.group\), `fold`"),
        ("speaker\nactor_01\n", CorpusError, "has columns speaker; expected"),
        ("speaker,fold\nactor_01,\n", CorpusError, "row 1: no fold"),
        ("speaker,fold\n,1\n", CorpusError, "row 1: no speaker"),
        ("speaker,fold,role\nactor_01,1,dev\n", CorpusError, "Unknown role in row 1 .*'dev'.* Known: test, train, val"),
        ("speaker,fold,role\nactor_01,1,train\n", CorpusError, "fold 1 has no test clip"),
        ("speaker,fold,role\nactor_01,1,test\n", CorpusError, "fold 1 has no training clip"),
        ("speaker,fold\nactor_01,1\nactor_02,1\n", CorpusError, "has one fold, 1: nothing is left to train on"),
        ("speaker,fold\n1,1\n2,2\n", CorpusError, "no clip has any speaker it names .1, ….; there are actor_01"),
        ('speaker,fold\n"actor_01,1\n', CorpusError, "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_one_line(built, tmp_path, content, error, said):
    path = tmp_path / "folds.csv"
    path.write_text(content)
    with pytest.raises(error, match=said) as caught:
        built(kind="file", file=str(path))
    assert "\n" not in str(caught.value) and "folds.csv" in str(caught.value) or "fold 1 has no" in str(caught.value)


def test_where_there_is_no_file(built, tmp_path):
    for name, said in ((None, "needs a table of folds"), ("x.txt", "needs a table"), (str(tmp_path / "x.csv"), "is not there")):
        with pytest.raises(ParamsError, match=f"protocol.file.*{said}"):
            built(kind="file", file=name)
    (tmp_path / "x.json").write_text("[{]")
    with pytest.raises(CorpusError, match="cannot be read"):
        built(kind="file", file=str(tmp_path / "x.json"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match="cannot be read"):
        built(kind="file", file=str(tmp_path / "x.parquet"))


def clips(count: int = 24, **columns) -> pl.DataFrame:
    rows = [
        {"id": f"c{i:02}", "emotion": ("joy", "sadness")[i % 2], **{name: value(i) for name, value in columns.items()}}
        for i in range(count)
    ]
    return tables.frame(rows)


def two(i: int) -> str:
    return "ab"[i // 12]


def test_cross_corpus_from_each_source_or_from_one():
    table = clips(36, corpus=lambda i: "abc"[i // 12], speaker=lambda i: f"{'abc'[i // 12]}/{i % 4}")
    protocol = Protocol(kind="cross", val=0.25)
    folds = split.make_folds(table, protocol).join(table.select("id", "corpus", "speaker"), on="id")
    assert folds["name"].unique().sort().to_list() == ["a → b, c", "b → a, c", "c → a, b"]
    for (name,), part in folds.group_by("name"):
        for role, corpora in (("train", {name[0]}), ("val", {name[0]}), ("test", {"a", "b", "c"} - {name[0]})):
            assert set(part.filter(pl.col("role") == role)["corpus"]) == corpora
        val = part.filter(pl.col("role") == "val")
        assert val.height == 3 and val["speaker"].n_unique() == 1, "a quarter of the source, whole speakers"
    alone = split.make_folds(table, protocol.model_copy(update={"source": "b"}))
    assert split.is_single(alone) and alone["name"].unique().to_list() == ["b → a, c"]
    with pytest.raises(ParamsError, match="Unknown corpus in protocol.source 'd'.*Known: a, b, c"):
        split.make_folds(table, protocol.model_copy(update={"source": "d"}))
    with pytest.raises(ValueError, match="source is b, but kind is kfold"):
        Protocol(kind="kfold", source="b")


def test_joint_folds_hold_a_part_of_every_corpus():
    """One corpus of many clips per speaker and one of few: each fold tests its share of both, by speaker."""
    table = clips(120, corpus=lambda i: "a" if i < 90 else "b", speaker=lambda i: f"a/{i // 9}" if i < 90 else f"b/{i // 3}")
    folds = split.make_folds(table, Protocol(kind="kfold", folds=5)).join(table.select("id", "corpus", "speaker"), on="id")
    for _, part in folds.filter(pl.col("role") == "test").group_by("fold"):
        assert dict(part["corpus"].value_counts().iter_rows()) == {"a": 18, "b": 6}


@pytest.mark.parametrize(
    ("table", "protocol", "said"),
    [
        (clips(speaker=lambda i: "s"), Protocol(kind="leave_one_out"), "one group; leave_one_out needs two"),
        (clips(speaker=lambda i: "st"[i % 2]), Protocol(kind="leave_one_out"), "column speaker has 1 groups, 2 are needed"),
        (
            clips(corpus=lambda i: "a", speaker=lambda i: f"s{i % 4}"),
            Protocol(kind="cross"),
            "cross needs two corpora; there is a",
        ),
        (clips(corpus=two, speaker=lambda i: two(i)), Protocol(kind="cross"), "column speaker has 1 groups, 2 are needed"),
        (clips(corpus=two), Protocol(kind="cross"), "no clip of this corpus has a speaker"),
    ],
)
def test_too_few_groups_are_one_line(table, protocol, said):
    with pytest.raises(UserError, match=said) as caught:
        split.make_folds(table, protocol)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(kind="cross"),
        Protocol(kind="cross", source="a"),
        Protocol(kind="leave_one_out", group="corpus", val_group="speaker"),
    ],
)
def test_two_corpora_without_a_common_class(protocol):
    table = clips(corpus=two, speaker=lambda i: f"{two(i)}/{i % 4}").with_columns(
        emotion=pl.when(pl.col("corpus") == "a").then(pl.col("emotion")).otherwise(pl.lit("fear"))
    )
    with pytest.raises(CorpusError, match="trains on .* and tests .*: no class in common, nor a dimension") as caught:
        coverage.check_labels(table, split.make_folds(table, protocol))
    assert "\n" not in str(caught.value)
    # What both have is enough: a class, or a dimension.
    for shared in (table.with_columns(valence=pl.lit(0.5)), table.with_columns(emotion=pl.lit("joy"))):
        coverage.check_labels(shared, split.make_folds(shared, protocol))


def test_clips_without_a_group_are_one_fold_of_leave_one_out():
    """Six clips of nobody: not six folds of one clip, and none of them lost."""
    table = clips(speaker=lambda i: f"s{i % 3}" if i < 18 else None)
    folds = split.make_folds(table, Protocol(kind="leave_one_out", val=0.2)).join(table.select("id", "speaker"), on="id")
    held = folds.filter(pl.col("role") == "test")
    assert dict(held["name"].value_counts().iter_rows()) == {"s0": 6, "s1": 6, "s2": 6, "no speaker": 6}
    assert held.filter(pl.col("name") == "no speaker")["speaker"].null_count() == 6


def test_the_card_says_what_folds_lack(built, corpus, tmp_path, tone):
    """An emotion that one actor alone shows is tested and not taught in that actor's fold."""
    tone(corpus / "Actor_06/03-01-08-01-01-01-06.wav", frequency=900)
    path = tmp_path / "folds.csv"
    path.write_text(csv_of(FOLDS))
    _, _, card = built(kind="file", file=str(path))
    assert card["notes"]["classes that fold 3 tests and has no training clip of"] == "surprised"

"""Turns that nobody is trained or scored on stay in their dialogues."""

from __future__ import annotations

import json

import polars as pl
import pytest

from pipeline.data import build, turns
from pipeline.data.corpora import open_corpus
from pipeline.data.corpora.adapter import Tables
from pipeline.data.join import Member, join_corpora
from pipeline.evaluation.datacard import read_card
from pipeline.features.engine.reader import list_jobs
from pipeline.params import Corpus, parse_stream
from pipeline.storage import tables

#: Turn, code of its emotion, and what is to become of it.
SPOKEN = (
    ("F000", "neu", "target"),
    ("M000", "xxx", "of valence"),
    ("FXX0", None, "not rated"),
    ("F001", "zzz", "no emotion of the corpus"),
    ("M001", "ang", "quarantined"),
    ("F002", "fea", "of valence"),
    ("M002", "hap", "target"),
)


@pytest.fixture
def iemocap(tmp_path, tone):
    """Three sessions of one dialogue, in which the turns follow each other once a second."""
    root = tmp_path / "IEMOCAP"
    for session in (1, 2, 3):
        name, place = f"Ses0{session}F_impro01", root / f"Session{session}"
        rated, spoken = [], []
        for at, (turn, code, what) in enumerate(SPOKEN):
            spoken.append(f"{name}_{turn} [{at:.4f}-{at + 0.5:.4f}]: Turn {turn}.\n")
            if code:
                rated.append(f"[{at:.4f} - {at + 0.5:.4f}]\t{name}_{turn}\t{code}\t[2.0000, 3.0000, 4.0000]\n")
                path = tone(place / f"sentences/wav/{name}/{name}_{turn}.wav", frequency=200 + 30 * at + 7 * session)
                if what == "quarantined":
                    path.write_bytes(b"")
        for kind, lines in (("EmoEvaluation", rated), ("transcriptions", spoken)):
            path = place / f"dialog/{kind}/{name}.txt"
            path.parent.mkdir(parents=True)
            path.write_text("".join(lines))
    return root


def texts(table: pl.DataFrame, turns: int = 8) -> dict[str, list[str | None]]:
    """Clip → what an encoder of dialogues is given before it."""
    stream = parse_stream(
        {"modality": "text", "source": "data/manifest.parquet", "encoder": "text", "weights": "random:0"}, "test"
    )
    return {job.id: [turn.text for turn in job.context] for job in list_jobs(table, stream, turns=turns)}


PROTOCOLS = {
    "folds": {"kind": "leave_one_out", "group": "session", "val": 0.0},
    "split": {"kind": "split", "group": "session", "val": 0.0, "test": 0.3},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_turn_before_is_seen(iemocap, tmp_path, settings, protocol):
    build.build_manifest(settings("iemocap", iemocap, protocol=PROTOCOLS[protocol]), tmp_path / "data")
    read = {name: pl.read_parquet(tmp_path / f"data/{name}.parquet") for name in ("manifest", "folds", "truth", "quarantine")}
    table = read["manifest"].sort("dialogue", "turn")
    assert table["turn"].to_list() == [0, 1, 2, 3, 4, 5, 6] * 3
    said = [f"Turn {turn}." for turn, _, _ in SPOKEN]
    for session in (1, 2, 3):
        assert texts(table)[f"iemocap/Ses0{session}F_impro01_M002"] == said[:6]
        assert texts(table)[f"iemocap/Ses0{session}F_impro01_F001"] == said[:3]
    # Nobody is trained or scored on what has no label.
    targets = [what in ("target", "of valence") for _, _, what in SPOKEN]
    assert table["target"].to_list() == targets * 3
    assert set(read["folds"]["id"]) == set(table.filter("target")["id"])
    assert set(read["truth"]["id"]) <= set(table.filter("target")["id"])
    assert read["truth"]["valence"].null_count() == 0 and read["truth"]["valence"].unique().to_list() == [-0.5]
    others = table.filter(~pl.col("target"))
    assert all(others[name].is_null().all() for name in tables.LABELS)
    assert sorted(read["quarantine"]["reason"]) == ["empty"] * 3 + ["label"] * 3
    # What is left of a clip in quarantine is what was said.
    lost = table.filter(pl.col("id").str.ends_with("M001"))
    assert lost["audio"].is_null().all() and lost["duration"].is_null().all() and lost["text"].to_list() == ["Turn M001."] * 3
    assert table.filter(pl.col("id").str.ends_with("F001"))["audio"].null_count() == 0
    card = json.loads((tmp_path / "data/card.json").read_text())
    assert (card["clips"], card["context"], card["labelled"]["emotion"], card["labelled"]["valence"]) == (12, 9, 6, 12)
    shown = dict(read_card(tmp_path / "data").facts)
    assert (shown["Clips"], shown["Turns beside them, without a label"], shown["With sound"]) == ("12", "9", "100 %")
    assert card["notes"]["turns of clips in quarantine, kept for what was said"] == 3
    assert card["notes"]["turns without a label, kept as context"] == 6
    assert card["notes"]["turns of no class asked for"] == {"fearful": 3, "not of IEMOCAP": 3, "not rated": 3, "xxx": 3}


def test_they_are_left_out_on_demand(iemocap, tmp_path, settings):
    build.build_manifest(settings("iemocap", iemocap, {"others": "drop"}, protocol=PROTOCOLS["folds"]), tmp_path / "data")
    table = pl.read_parquet(tmp_path / "data/manifest.parquet")
    assert table.filter("target").height == 6 and table.filter(~pl.col("target"))["id"].str.slice(-4).unique().to_list() == [
        "M001"
    ]


def test_lost_turns_do_not_lower_the_rate(iemocap, settings):
    from pipeline.data.check import check_corpus

    found = check_corpus(settings("iemocap", iemocap, protocol=PROTOCOLS["folds"], quarantine={"max_rate": 0.3}))
    # Of 7 turns a session one is lost and one has a label that is none.
    assert (found["clips"], found["context"], found["failed"]) == (18, 9, 6) and found["rate"] == 6 / 24


def dialogue(rows):
    """Rows of (id, split, dialogue, turn, target)."""
    names = ("id", "split", "dialogue", "turn", "target")
    return tables.frame([dict(zip(names, row, strict=True)) | {"corpus": "c"} for row in rows])


def test_a_turn_goes_with_the_next_target_of_its_dialogue():
    table = dialogue(
        [
            ("a", None, "d", 0, False),
            ("b", None, "d", 1, True),
            ("c", None, "d", 2, False),
            ("d", None, "d", 3, True),
            ("e", None, "d", 4, False),
            ("f", None, "x", 0, False),
            ("g", None, None, None, True),
            ("h", None, None, None, False),
        ]
    )
    folds = pl.DataFrame({"id": ["b", "d", "g"], "fold": [0, 0, 0], "role": ["train", "test", "val"]})
    found = turns.share_split(table, folds)
    assert found["id"].to_list() == list("abcdefgh") and found.columns == table.columns
    assert found["split"].to_list() == ["train", "train", "test", "test", "test", None, "val", None]


def test_dialogues_of_one_name_in_two_splits_are_two():
    table = dialogue(
        [("a", "train", "0", 0, False), ("b", "train", "0", 1, True), ("c", "test", "0", 0, False), ("d", "test", "0", 1, True)]
    )
    folds = pl.DataFrame({"id": ["b", "d"], "fold": [0, 0], "role": ["train", "test"]})
    assert turns.share_split(table, folds)["split"].to_list() == ["train", "train", "test", "test"]


def test_other_corpora_keep_their_turns_too(tmp_path):
    """A MELD clip known to be damaged or with a label that is none, and an emotion without a common name."""
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    lines = [
        f'1,"Line {utt}.",Ross,{emotion},neutral,{dia},{utt},1,1,"00:00:01,0","00:00:02,0"\n'
        for dia, utt, emotion in ((125, 2, "joy"), (125, 3, "joy"), (7, 0, "glee"))
    ]
    (tmp_path / "train").mkdir()
    (tmp_path / "train/train_sent_emo.csv").write_text(header + "".join(lines))
    (tmp_path / "train/train_splits").mkdir()
    found = open_corpus(Corpus(name="meld", root=str(tmp_path), options={"known": "quarantine", "media": "video"})).read()
    kept = {clip["id"]: clip.get("target", True) for clip in found.clips}
    assert kept == {
        "meld/train/dia125_utt2": True,
        "meld/train/dia125_utt3": False,
        "meld/train/dia7_utt0": False,
    }
    assert [row["reason"] for row in found.problems][:2] == ["known", "row"]
    clip = {"id": "iemocap/a", "emotion": "frustrated", "dialogue": "d", "turn": 3, "text": "No!", "audio": "a.wav"}
    alone = {"id": "iemocap/b", "emotion": "frustrated", "text": "No!", "audio": "b.wav"}
    joined = join_corpora({"iemocap": Member("iemocap", Tables([clip, alone]))})
    assert [(c["id"], c["target"], c["emotion"], c["text"]) for c in joined.clips] == [("iemocap/a", False, None, "No!")]
    assert [row["id"] for row in joined.problems] == ["iemocap/a", "iemocap/b"]


def read(tmp_path, name, file, text, **options):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    found = open_corpus(Corpus(name=name, root=str(tmp_path), options=options)).read()
    return {clip["id"]: clip for clip in found.clips}, [(row["reason"], row["detail"]) for row in found.problems]


def test_a_line_of_a_table_is_lost_as_a_turn_only_when_nothing_of_it_can_be_read(tmp_path):
    """A label that is none costs the labels; a time or place that is none the media; without words nothing is left."""
    lines = [
        "id,audio,start,text,emotion,valence,dialogue,turn",
        "a,a.wav,,Yes.,joy,0.5,d,0",
        "b,b.wav,,No.,glee,0.5,d,1",
        "c,c.wav,,Why?,joy,lots,d,2",
        "e,e.wav,soon,Well.,joy,0.5,d,3",
        "f,f.wav,soon,,joy,0.5,d,4",
        "g,g.wav,,Alone.,glee,0.5,,",
        "h,h.wav,,When?,joy,0.5,d,first",
    ]
    clips, problems = read(tmp_path, "generic", "clips.csv", "\n".join(lines), table="clips.csv", emotions={"joy": "happy"})
    assert {name: (clip.get("target", True), clip.get("audio"), clip["text"]) for name, clip in clips.items()} == {
        "generic/a": (True, "a.wav", "Yes."),
        "generic/b": (False, "b.wav", "No."),
        "generic/c": (False, "c.wav", "Why?"),
        "generic/e": (False, None, "Well."),
    }
    assert all(clips[f"generic/{name}"].get(label) is None for name in "bce" for label in tables.LABELS)
    assert [reason for reason, _ in problems] == ["label", "row", "row", "row", "label", "row"]
    assert [detail.endswith("; the turn stays as context") for _, detail in problems] == [True, True, True, False, False, False]


def test_a_file_of_a_tree_with_a_wrong_label_stays_a_turn(tmp_path):
    for name in ("glee", "joy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "d1_2.wav").write_bytes(b"RIFF")
    (tmp_path / "glee/alone.wav").write_bytes(b"RIFF")
    options = {"names": r"(?P<dialogue>d\d)_(?P<turn>\d)|.*", "levels": ["emotion"], "emotions": {"joy": "happy"}}
    found = open_corpus(Corpus(name="generic", root=str(tmp_path), options=options)).read()
    kept = {clip["id"]: (clip.get("target", True), clip["audio"], clip["emotion"]) for clip in found.clips}
    assert kept == {
        "generic/glee/d1_2": (False, "glee/d1_2.wav", None),
        "generic/joy/d1_2": (True, "joy/d1_2.wav", "happy"),
    }


def test_a_meld_line_without_a_time_keeps_its_film(tmp_path):
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    lines = [
        f'1,"Line {utt}.",Ross,joy,positive,7,{utt},1,1,"{start}","00:00:02,0"\n'
        for utt, start in ((0, "soon"), ("x", "00:00:01,0"))
    ]
    clips, problems = read(tmp_path, "meld", "train/train_sent_emo.csv", header + "".join(lines))
    assert [(name, clip["target"], clip["text"], clip["emotion"]) for name, clip in clips.items()] == [
        ("meld/train/dia7_utt0", False, "Line 0.", None)
    ]
    assert problems[0][1].endswith("; the turn stays as context") and "context" not in problems[1][1]


def test_a_sentiment_line_off_its_scale_stays_a_turn(tmp_path):
    lines = [
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode",
        "v,1,yes,0.4,0,0,0,Positive,train",
        "v,2,no,9,0,0,0,Positive,train",
        "v,3,oh,0.4,0,0,0,Great,train",
        "v,4,ah,0.4,0,0,0,Positive,tomorrow",
    ]
    clips, problems = read(tmp_path, "ch_sims", "label.csv", "\n".join(lines))
    assert {name: (clip.get("target", True), clip["turn"], clip["valence"]) for name, clip in clips.items()} == {
        "ch_sims/v/1": (True, 1, 0.4),
        "ch_sims/v/2": (False, 2, None),
        "ch_sims/v/3": (False, 3, None),
    }
    assert [detail.endswith("context") for _, detail in problems] == [True, True, False]

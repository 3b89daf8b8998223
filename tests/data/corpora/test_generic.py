"""Tables and trees of anybody's making, bad input, and the documentation page."""

from __future__ import annotations

import json
from pathlib import Path

import openpyxl
import polars as pl
import pytest

from pipeline.data import build
from pipeline.data.check import check_corpus
from pipeline.data.corpora import names, open_corpus, table
from pipeline.data.corpora.page import page
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus

ROOT = Path(__file__).resolve().parents[3]


def read(root, **options):
    return open_corpus(Corpus(name="generic", root=str(root), options=options)).read()


ROWS = [
    {"clip": "1", "file": "a.wav", "who": "A", "label": "Joy", "val": 5},
    {"clip": "2", "file": "b.mp4", "who": "B", "label": "Odd", "val": 1},
    {"clip": "3", "file": "c.mp4", "who": "C", "label": "Sad", "val": 9},
]
OPTIONS = {
    "columns": {"id": "clip", "media": "file", "speaker": "who", "emotion": "label", "valence": "val"},
    "scales": {"valence": (1, 5)},
    "emotions": {"Joy": "happy", "Sad": "sad"},
}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "semicolon.csv", "jsonl", "json", "xlsx"])
def test_every_kind_of_table(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    elif suffix == "json":
        path.write_text(json.dumps({"clips": ROWS}))
    elif suffix == "xlsx":
        book = openpyxl.Workbook()
        for row in [list(ROWS[0]), *(list(r.values()) for r in ROWS)]:
            book.active.append(row)
        book.save(path)
    else:
        sign = {"csv": ",", "tsv": "\t", "semicolon.csv": ";"}[suffix]
        path.write_text("\n".join([sign.join(ROWS[0]), *(sign.join(map(str, r.values())) for r in ROWS)]))
    tables = read(tmp_path, table=path.name, **OPTIONS)
    (clip,) = tables.clips
    assert {k: clip[k] for k in ("id", "audio", "video", "speaker", "emotion", "valence")} == {
        "id": "generic/1",
        "audio": "a.wav",
        "video": None,
        "speaker": "A",
        "emotion": "happy",
        "valence": 1.0,
    }
    assert [p["reason"] for p in tables.problems] == ["label", "row"]


def test_clips_of_several_emotions(tmp_path):
    (tmp_path / "t.csv").write_text(
        'id,text,emotion,labels\na,x,joy; surprise,"{""votes"": [""A""]}"\nb,x,joy,\nc,x,;,\nd,x,joy;odd,\n'
    )
    names = {"joy": "happy", "surprise": "surprised"}
    tables = read(tmp_path, table="t.csv", separator=";", emotions=names)
    found = {clip["id"][-1]: (clip["emotion"], json.loads(clip["labels"] or "{}")) for clip in tables.clips}
    both = {"emotions": ["happy", "surprised"], "votes": ["A"]}
    assert found["a"] == ("happy", both) and found["b"] == ("happy", {}) and found["c"] == (None, {})
    assert "'odd' is not in corpus.options.emotions" in tables.problems[0]["detail"] and len(tables.problems) == 1
    whole = {clip["id"][-1]: clip["emotion"] for clip in read(tmp_path, table="t.csv").clips}
    assert whole["a"] == "joy; surprise"
    (tmp_path / "t.csv").write_text("id,text,emotion,labels\na,x,joy;fear,[1]\n")
    tables = read(tmp_path, table="t.csv", separator=";")
    assert tables.problems[0]["reason"] == "row" and "no JSON object" in tables.problems[0]["detail"]


def test_a_tree_of_folders(tmp_path, tone, settings):
    for split in ("training", "dev", "test"):
        for at, emotion in enumerate(("happy", "sad")):
            tone(tmp_path / f"c/{split}/{emotion}/clip.wav", frequency=200 + 50 * at + 11 * len(split))
    tone(tmp_path / "c/stray.wav")
    (tmp_path / "c/test/happy/loop").symlink_to(tmp_path / "c")
    tables = read(tmp_path / "c", levels=("split", "emotion"))
    assert {(c["id"], c["split"], c["emotion"]) for c in tables.clips} >= {("generic/dev/happy/clip", "val", "happy")}
    assert len(tables.clips) == 6 and [p["reason"] for p in tables.problems] == ["name", "surplus"]
    report = check_corpus(settings("generic", tmp_path / "c", {"levels": ["split", "emotion"]}, protocol={"kind": "official"}))
    assert report["ok"] and report["clips"] == 6 and report["emotions"] == {"happy": 3, "sad": 3}
    assert report["quarantine"] == {"name": 1, "surplus": 1} and report["length"]["most"] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,emotion\n1,a\n", "no column of media or text"),
        ("id,id\n1,2\n", "column 'id' occurs twice"),
        ("id,text\n1,hi,there\n", "line 2: more cells than the 2 columns"),
        ('id,text\n1,"open\n', r"line \d: unexpected end of data"),
        ("id,text\n", "holds no rows"),
        ("id,te\0xt\n1,2\n", "NUL bytes"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CorpusError, match=said) as caught:
        read(tmp_path, table="t.csv")
    assert "\n" not in str(caught.value) and "t.csv" in str(caught.value)


def test_other_bad_input(tmp_path):
    (tmp_path / "t.csv").write_text("id,text\n1,hi\n")
    with pytest.raises(CorpusError, match="t.csv: column 'said' is missing. Columns: id, text"):
        read(tmp_path, table="t.csv", columns={"text": "said"})
    with pytest.raises(CorpusError, match="leads out of"):
        read(tmp_path, table="../t.csv")
    with pytest.raises(ParamsError, match="'actor' is not one of"):
        read(tmp_path, columns={"actor": "x"})
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(CorpusError, match="t.jsonl, line 2: not valid JSON"):
        read(tmp_path, table="t.jsonl")
    (tmp_path / "t.xlsx").write_bytes(b"no book")
    with pytest.raises(CorpusError, match="not a spreadsheet"):
        read(tmp_path, table="t.xlsx")


def test_mixed_encodings_line_by_line(tmp_path):
    (tmp_path / "t.csv").write_bytes("id,text\n1,café\n".encode() + "2,naïve\n".encode("cp1252"))
    assert [row["text"] for _, row in table.rows_of(tmp_path / "t.csv")] == ["café", "naïve"]
    (tmp_path / "u.csv").write_text("id,text\n1,我\n", encoding="utf-16")
    assert table.rows_of(tmp_path / "u.csv")[0][1]["text"] == "我"


def test_damage_and_leaks_of_a_table(tmp_path, tone, settings):
    """Through the stage: what is lost has a reason, what is shared is said, what is held out is hidden."""
    lines = ["id,media,text,split,speaker,emotion"]
    for i, (part, who) in enumerate((("train", "a"), ("train", "b"), ("dev", "c"), ("test", "d"), ("test", "a"), ("x", "e"))):
        tone(tmp_path / f"c/{i}.wav", frequency=200 + 20 * i, amplitude=0 if i == 3 else 0.3)
        lines.append(f"{i},{i}.wav,The very same sentence,{part},{who},{'happy' if i % 2 else 'sad'}")
    (tmp_path / "c/broken.wav").write_bytes(b"RIFF and nothing more")
    (tmp_path / "c/t.csv").write_text("\n".join([*lines, "9,broken.wav,,train,a,sad", "0,1.wav,,train,a,sad"]))
    params = settings("generic", tmp_path / "c", {"table": "t.csv"}, protocol={"kind": "official", "on_leak": "report"})
    build.build_manifest(params, tmp_path / "data")
    table, lost = (pl.read_parquet(tmp_path / f"data/{name}.parquet") for name in ("manifest", "quarantine"))
    assert table["id"].to_list() == [f"generic/{i}" for i in (0, 1, 2, 4)]
    assert sorted(lost["reason"]) == ["duplicate", "label", "silent", "unreadable"]
    assert table["emotion"].to_list() == ["sad", "happy", "sad", None]
    card = json.loads((tmp_path / "data/card.json").read_text())
    assert [(leak["column"], leak["splits"], leak["share"]) for leak in card["leaks"]] == [("speaker", ["train", "test"], 1.0)]
    assert [item["said"] for item in card["similar_text"] if item["splits"] == ["train", "test"]] == [
        "1 test clips (100.0%) say a sentence that train clips say too (1 sentences)"
    ]


def test_the_committed_page_is_the_generated_one():
    assert (ROOT / "docs/corpora.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", names())
def test_every_corpus_has_a_page_and_a_configuration(name):
    assert (ROOT / f"docs/corpora/{name}.md").read_text(encoding="utf-8").startswith("# ")
    assert f"name: {name}" in (ROOT / f"conf/corpus/{name}.yaml").read_text(encoding="utf-8")

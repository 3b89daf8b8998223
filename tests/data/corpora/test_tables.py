"""Tables as spreadsheets, pandas, Windows and macOS leave them: no row is lost or altered without a word."""

from __future__ import annotations

import datetime
import unicodedata

import numpy as np
import openpyxl
import polars as pl
import pytest

from pipeline.data import build
from pipeline.data.corpora import cells, folder, open_corpus, table
from pipeline.errors import CorpusError
from pipeline.params import Corpus

WORDS = ["nan", "NaN", "None", "NA", "N/A", "n/a", "null", "NULL", "<NA>", "#N/A", "-"]


def read(root, text, name="t.csv", **options):
    if text is not None:
        (root / name).write_text(text, encoding="utf-8")
    return open_corpus(Corpus(name="generic", root=str(root), options={"table": name, **options})).read()


def column(tables, name):
    return [clip.get(name) for clip in tables.clips]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_nothing_is_nothing(tmp_path, word):
    found = read(
        tmp_path,
        f"id,media,emotion,text,speaker,dialogue,turn,start,valence\n1,a.wav,{word},{word},{word},{word},{word},{word},{word}\n",
    )
    (clip,) = found.clips
    assert all(clip[n] is None for n in ("emotion", "text", "speaker", "dialogue", "turn", "start", "valence"))
    assert (clip["id"], clip["audio"]) == ("generic/1", "a.wav")


@pytest.mark.parametrize("word", ["none", "Nan", "NULL?", "na", "nan nan", "No", "--", "inf"])
def test_what_a_person_says_survives(tmp_path, word):
    found = read(tmp_path, f"id,media,emotion,text\n1,a.wav,{word},{word}\n")
    assert column(found, "text") == column(found, "emotion") == [word]


def test_words_for_nothing_of_pandas_are_ours():
    pandas = {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"}
    assert pandas | {"NULL", "NaN", "None", "n/a", "nan", "null"} == cells.ABSENT - {"-", "NaT"}


def test_whole_numbers_of_a_column_with_gaps(tmp_path):
    found = read(tmp_path, "id,media,turn\n1,a.wav,0.0\n2,b.wav,1.0\n3,c.wav,\n4,d.wav,3\n5,e.wav,1.5\n")
    assert column(found, "turn") == [0, 1, None, 3]
    assert [(p["reason"], p["detail"]) for p in found.problems] == [("row", "line 6: 1.5 is no whole number")]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_empty_columns_and_rows_at_the_edge(tmp_path, suffix):
    text = "id,media,emotion,,,\n0,a.wav,happy,,,\n1,b.wav,sad,,,,,\n2,c.wav\n,,,,,\n,,,,,\n"
    sign = {"csv": ",", "tsv": "\t"}[suffix]
    found = read(tmp_path, text.replace(",", sign), f"t.{suffix}")
    assert column(found, "emotion") == ["happy", "sad", None] and not found.problems
    with pytest.raises(CorpusError, match=r"line 2: 'x' stands in column 5, which has no name"):
        read(tmp_path, "id,media,emotion,,,\n0,a.wav,happy,,x,\n")


def test_empty_columns_of_a_spreadsheet(tmp_path):
    book = openpyxl.Workbook()
    for row in (["id", "media", "emotion", None, None], [0, "a.wav", "happy", None, " "], [None, " ", None, None, None]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    assert table.rows_of(tmp_path / "t.xlsx") == [(2, {"id": "0", "media": "a.wav", "emotion": "happy"})]
    book.active["E2"] = "stray"
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(CorpusError, match="line 2: 'stray' stands in a column without a name"):
        table.rows_of(tmp_path / "t.xlsx")
    book.active["E1"], book.active["D1"] = "id", "x"
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(CorpusError, match="column 'id' occurs twice"):
        table.rows_of(tmp_path / "t.xlsx")


def test_decimal_commas(tmp_path):
    found = read(tmp_path, "id;media;start;end;valence\n0;a.wav;0,1;0,9;-0,05\n1;b.wav;1,125;12,345;1\n")
    assert column(found, "start") == [0.1, 1.125] and column(found, "end") == [0.9, 12.345]
    assert column(found, "valence") == [-0.05, 1.0] and not found.problems
    quoted = read(tmp_path, 'id,media,end\n0,a.wav,"0,9"\n1,b.wav,"1.5"\n')
    assert column(quoted, "end") == [0.9, 1.5]


def test_a_comma_that_may_be_a_thousands_is_not_guessed(tmp_path):
    found = read(tmp_path, 'id,media,end\n0,a.wav,"1,234"\n1,b.wav,2.5\n2,c.wav,"1,234,567"\n3,d.wav,soon\n')
    assert column(found, "end") == [2.5]
    assert [p["detail"] for p in found.problems] == [
        "line 2: 1,234 may be 1.234 or 1234; write it with a point",
        "line 4: '1,234,567' is no number",
        "line 5: 'soon' is no number",
    ]


def test_times_of_a_spreadsheet(tmp_path):
    book = openpyxl.Workbook()
    time = datetime.time(0, 1, 2, 500000)
    for row in (["id", "media", "start", "end"], [0, "a.wav", datetime.time(0, 0, 1), time], [1, "b.wav", 0, "1:00:03,5"]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    found = read(tmp_path, None, "t.xlsx")
    assert column(found, "start") == [1.0, 0.0] and column(found, "end") == [62.5, 3603.5]


def test_a_row_without_any_medium_is_listed(tmp_path):
    found = read(tmp_path, "id,media,emotion,text\n0,a.wav,happy,\n1,,sad,\n2,nan,angry,None\n3,,happy,only words\n")
    assert column(found, "id") == ["generic/0", "generic/3"]
    assert [(p["reason"], p["detail"]) for p in found.problems] == [
        ("missing", f"line {line}: no medium and no text (the cells of 'text', 'media' are empty)") for line in (3, 4)
    ]
    assert found.notes["lines without media, kept for their text"] == 1
    assert "lines without media, kept for their text" not in read(tmp_path, "id,text\n0,words\n").notes


def test_a_formula_that_was_never_calculated_is_no_medium(tmp_path):
    book = openpyxl.Workbook()
    for row in (["id", "media", "emotion"], [0, '=CONCATENATE("a", ".wav")', "happy"], [1, "b.wav", "sad"]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    found = read(tmp_path, None, "t.xlsx")
    assert column(found, "audio") == ["b.wav"] and [p["reason"] for p in found.problems] == ["missing"]


QUOTES = ['"an open one', "plain", 'and a closed one"', '"Stop!" she said.', 'say "a" and "b"', '"', '""x', 'x"', "last"]


@pytest.mark.parametrize("sign", ["\t", ",", ";"])
def test_quotes_that_are_text_swallow_no_row(tmp_path, sign):
    text = "".join(sign.join((str(i), f"{i}.wav", "joy", said)) + "\n" for i, said in enumerate(QUOTES))
    found = read(tmp_path, sign.join(("id", "media", "emotion", "text")) + "\n" + text, "t.tsv" if sign == "\t" else "t.csv")
    assert column(found, "text") == QUOTES and not found.problems
    assert [clip["where"].split()[-1] for clip in found.clips] == [str(i + 2) for i in range(len(QUOTES))]


@pytest.mark.parametrize("sign", ["\t", ",", ";"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_quotes_by_the_rules_are_read_by_them(tmp_path, sign, ending):
    said = ['He said "hi"', f"a{sign}b", "two\nlines, of, text", '"', "", "é"]
    quoted = ['"' + text.replace('"', '""') + '"' for text in said]
    head = sign.join(("id", "media", "emotion", "text"))
    rows = [head, *(sign.join((str(i), f"{i}.wav", "joy", text)) for i, text in enumerate(quoted))]
    (tmp_path / "t.tsv").write_bytes((ending.join(rows) + ending).encode())
    name = "t.tsv" if sign == "\t" else "t.csv"
    (tmp_path / "t.tsv").rename(tmp_path / name)
    assert column(read(tmp_path, None, name), "text") == [text or None for text in said]


def test_a_tab_file_that_ends_in_an_open_quote_keeps_its_rows(tmp_path):
    found = read(tmp_path, 'id\tmedia\ttext\n0\ta.wav\t"open\n1\tb.wav\t"open too\n', "t.tsv")
    assert column(found, "text") == ['"open', '"open too']


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_decomposed_by_macos_are_found(tmp_path, tone, settings, form):
    names = ["é1.wav", "ü2.wav", "한국3.wav", "über/ö4.wav", "d.wav"]
    for i, name in enumerate(names):
        tone(tmp_path / "c" / unicodedata.normalize(form, name), frequency=200.0 + 30 * i)
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    rows = [f"{i},{unicodedata.normalize(other, name)},{'sad' if i % 2 else 'joy'}\n" for i, name in enumerate(names)]
    (tmp_path / "c/t.csv").write_text("id,media,emotion\n" + "".join(rows), encoding="utf-8")
    build.build_manifest(settings("generic", tmp_path / "c", {"table": "t.csv"}, protocol={"group": "id"}), tmp_path / "data")
    found = pl.read_parquet(tmp_path / "data/manifest.parquet")
    assert found["audio"].to_list() == [unicodedata.normalize(form, name) for name in names]
    assert np.allclose(found["duration"], 0.5)


def test_paths_of_windows_and_absolute_ones_below_the_root(tmp_path, tone):
    root = tmp_path / "c"
    for name in ("wav/a.wav", "wav/a:b.wav", "a:b.wav", "...x.wav", "wav/real\\name.wav"):
        tone(root / name)
    assert folder.locate(root, "wav\\a.wav") == "wav/a.wav" == folder.locate(root, ".\\wav\\a.wav")
    assert folder.locate(root, str(root / "wav/a.wav")) == "wav/a.wav"
    for name in ("wav/a:b.wav", "a:b.wav", "...x.wav", "wav/real\\name.wav", "wav/b.wav", "wav\\b.wav"):
        assert folder.locate(root, name) == name and folder.inside(root, name)
    for name in (
        "../c/wav/a.wav",
        "..\\c\\wav\\a.wav",
        "C:\\a.wav",
        "C:/a.wav",
        "/etc/passwd",
        "wav/../../x",
        "..",
        "\\\\host\\x",
    ):
        assert folder.locate(root, name) == name and not folder.inside(root, name)

"""Spreadsheets as people leave them: merged cells, formulas that failed or were never calculated, damage."""

from __future__ import annotations

import openpyxl
import openpyxl.chart
import pytest

from pipeline.data.corpora import open_corpus, spreadsheet
from pipeline.errors import CorpusError
from pipeline.params import Corpus

HEAD = ["media", "speaker", "emotion", "text"]


def book_of(*rows):
    book = openpyxl.Workbook()
    for row in (HEAD, *rows):
        book.active.append(row)
    return book


def read(root, book):
    book.save(root / "t.xlsx")
    return open_corpus(Corpus(name="generic", root=str(root), options={"table": "t.xlsx"})).read()


def test_merged_cells_hold_for_each_of_their_rows(tmp_path):
    book = book_of(*([f"{name}.wav", f"s{1 + at // 2}", ("happy", "sad")[at // 2], name] for at, name in enumerate("abcd")))
    for area in ("B2:B3", "C2:C3", "B4:C4"):
        book.active.merge_cells(area)
    found = read(tmp_path, book)
    assert [(clip["audio"], clip["speaker"], clip["emotion"], clip["text"]) for clip in found.clips] == [
        ("a.wav", "s1", "happy", "a"),
        ("b.wav", "s1", "happy", "b"),
        ("c.wav", "s2", "s2", "c"),
        ("d.wav", "s2", "sad", "d"),
    ]


def test_merged_media_and_rows_of_nothing(tmp_path):
    book = book_of(["a.wav", "s1", "happy", "one"], [None, "s2", "sad", "two"], [None] * 4, ["b.wav", "s3", "sad", "three"])
    book.active.merge_cells("A2:A3")
    found = read(tmp_path, book)
    assert [(clip["audio"], clip["speaker"], clip["where"]) for clip in found.clips] == [
        ("a.wav", "s1", "t.xlsx, line 2"),
        ("a.wav", "s2", "t.xlsx, line 3"),
        ("b.wav", "s3", "t.xlsx, line 5"),
    ]


@pytest.mark.parametrize(
    ("column", "value", "reason", "why"),
    [
        ("emotion", '=IF(1,"happy","sad")', "row", "a formula that was never calculated"),
        ("media", '=CONCATENATE("a",".wav")', "missing", "a formula that was never calculated"),
        ("emotion", "#REF!", "row", "#REF!"),
        ("text", "#NAME?", "row", "#NAME?"),
        ("speaker", "#DIV/0!", "row", "#DIV/0!"),
    ],
)
def test_a_formula_without_a_value_is_told(tmp_path, column, value, reason, why):
    row = dict(zip(HEAD, ["a.wav", "s1", "happy", "one"], strict=True)) | {column: value}
    found = read(tmp_path, book_of(list(row.values()), ["b.wav", "s2", "sad", "two"]))
    assert [clip["audio"] for clip in found.clips] == ["b.wav"]
    (lost,) = found.problems
    assert lost["reason"] == reason and lost["detail"].startswith(f"line 2: {column!r} holds {why};")


def test_damage_sheets_and_bombs_are_one_line(tmp_path, monkeypatch):
    path = tmp_path / "t.xlsx"
    book = book_of(["a.wav", "s1", "happy", "one"])
    book.create_chartsheet("Drawn").add_chart(openpyxl.chart.BarChart())
    book.save(path)
    for sheet, said in (("Drawn", "'Drawn' is a chart, not a table"), ("Other", "no sheet 'Other'. Sheets: Sheet, Drawn")):
        with pytest.raises(CorpusError, match=said):
            spreadsheet.read_rows(path, sheet)
    whole = path.read_bytes()
    for at in range(40, len(whole), len(whole) // 25):
        path.write_bytes(whole[:at] + bytes(16) + whole[at + 16 :])
        try:
            spreadsheet.read_rows(path)
        except CorpusError as error:
            assert "\n" not in str(error)
    path.write_bytes(whole)
    monkeypatch.setattr(spreadsheet, "MOST", 1000)
    with pytest.raises(CorpusError, match="unpacks to more than"):
        spreadsheet.read_rows(path)

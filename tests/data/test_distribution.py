"""Label distributions of tables of every kind."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import openpyxl
import polars as pl
import pytest

from pipeline.data.distribution import count_labels
from pipeline.errors import CorpusError

CELLS = ["joy", "joy, anger", "fear|joy", "", "悲伤、joy", "anger/anger"]


def write(path, cells):
    if path.suffix == ".csv":
        path.write_text("id,labels\n" + "".join(f'{i},"{c}"\n' for i, c in enumerate(cells)), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"labels": c}, ensure_ascii=False) + "\n" for c in cells), encoding="utf-8")
    elif path.suffix == ".parquet":
        pl.DataFrame({"labels": cells}).write_parquet(path)
    else:
        book = openpyxl.Workbook()
        for row in [("id", "labels"), *enumerate(cells)]:
            book.active.append(row)
        book.save(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".xlsx", ".parquet"])
def test_rows_and_shares(tmp_path, suffix):
    found = count_labels(write(tmp_path / f"t{suffix}", CELLS), "labels")
    assert (found.rows, found.labelled, found.labels) == (6, 5, 8)
    assert found.counts == (("joy", 4), ("anger", 2), ("fear", 1), ("悲伤", 1))
    label, count, coverage, share = found.lines()[0]
    assert (label, count) == ("joy", 4) and coverage == pytest.approx(400 / 6) and share == pytest.approx(50)


def test_csv_and_chart(tmp_path):
    found = count_labels(write(tmp_path / "t.csv", ["joy", "anger,joy"]), "labels")
    found.write_csv(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "joy,2,100.0000,66.6667"
    found.write_chart(tmp_path / "one.svg")
    found.write_chart(tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_chart_has_a_bar_per_label(tmp_path):
    count_labels(
        write(tmp_path / "t.csv", ["joy & <more>", "joy & <more>", "anger", "anger,joy & <more>"]), "labels"
    ).write_chart(tmp_path / "chart.svg")
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["labels", "joy & <more>", "3 (75.0 %)", "anger", "2 (50.0 %)", "rows in percent (of 4)"]
    bars = [float(element.get("width")) for element in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert bars[1] / bars[0] == pytest.approx(2 / 3, abs=1e-3)
    count_labels(write(tmp_path / "e.csv", ["", ""]), "labels").write_chart(tmp_path / "empty.svg")
    assert len(list(ElementTree.parse(tmp_path / "empty.svg").getroot())) == 3


def test_separators_and_lists_and_a_missing_column(tmp_path):
    path = write(tmp_path / "t.csv", ["a/b", "a/b"])
    assert count_labels(path, "labels", separators=";").counts == (("a/b", 2),)
    lists = tmp_path / "l.jsonl"
    lists.write_text('{"labels": ["joy", "love"]}\n')
    assert count_labels(lists, "labels").counts == (("joy", 1), ("love", 1))
    with pytest.raises(CorpusError, match="column 'emotion' is missing. Columns: id, labels"):
        count_labels(path, "emotion")
    with pytest.raises(CorpusError, match="is not there"):
        count_labels(tmp_path / "no.csv", "labels")

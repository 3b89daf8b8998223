"""Label distributions of tables of every kind."""

from __future__ import annotations

import json

import openpyxl
import polars as pl
import pytest

from pipeline.data.distribution import distribution
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
    found = distribution(write(tmp_path / f"t{suffix}", CELLS), "labels")
    assert (found.rows, found.labelled, found.labels) == (6, 5, 8)
    assert found.counts == (("joy", 4), ("anger", 2), ("fear", 1), ("悲伤", 1))
    label, count, coverage, share = found.lines()[0]
    assert (label, count) == ("joy", 4) and coverage == pytest.approx(400 / 6) and share == pytest.approx(50)


def test_csv_and_chart(tmp_path):
    found = distribution(write(tmp_path / "t.csv", ["joy", "anger,joy"]), "labels")
    found.write_csv(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "joy,2,100.0000,66.6667"
    found.write_chart(tmp_path / "one.png")
    found.write_chart(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_separators_and_lists_and_a_missing_column(tmp_path):
    path = write(tmp_path / "t.csv", ["a/b", "a/b"])
    assert distribution(path, "labels", separators=";").counts == (("a/b", 2),)
    lists = tmp_path / "l.jsonl"
    lists.write_text('{"labels": ["joy", "love"]}\n')
    assert distribution(lists, "labels").counts == (("joy", 1), ("love", 1))
    with pytest.raises(CorpusError, match="column 'emotion' is missing. Columns: id, labels"):
        distribution(path, "emotion")
    with pytest.raises(CorpusError, match="is not there"):
        distribution(tmp_path / "no.csv", "labels")

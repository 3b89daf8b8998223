"""Clips without labels: the stages after the index leave all that DVC wants, and say that there is nothing."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML

from pipeline.data.split import make_folds
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.report import write_report
from pipeline.params import Protocol
from pipeline.storage import tables
from pipeline.training.stage import train

ROOT = Path(__file__).resolve().parents[2]


def listed(stage: str) -> set[str]:
    """Outputs of a stage in dvc.yaml."""
    found = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    words = [*found.get("outs", ()), *found.get("metrics", ()), *found.get("plots", ())]
    return {next(iter(one)) if isinstance(one, dict) else one for one in words}


def test_without_labels_every_output_is_there_and_holds_nothing(fabricate, tmp_path, monkeypatch, caplog):
    params = fabricate().params(protocol={"kind": "none", "leakage": []})
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    assert train(params) == []
    assert evaluate(params) == {}
    assert listed("train") == {"models/runs"} and not [one for one in listed("evaluate") if not Path(one).is_file()]
    assert Path("models/runs").is_dir() and not list(Path("models/runs").glob("*/"))
    page = write_report(params).read_text()
    assert "features only, nothing is trained" in page
    assert "there is nothing to learn from" in caplog.text and "there is nothing to judge" in caplog.text


def test_a_run_that_was_there_before_is_gone(fabricate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = Path("models/runs/fused/fold0/seed0")
    old.mkdir(parents=True)
    train(fabricate().params(protocol={"kind": "none", "leakage": []}))
    assert not old.exists()


@pytest.mark.parametrize("count", [1, 2, 30])
def test_every_clip_is_one_to_normalise_by(count):
    table = tables.frame([{"id": f"c{i}", "corpus": "x", "content": str(i)} for i in range(count)])
    table = table.with_columns(target=pl.lit(True))
    folds = make_folds(table, Protocol(kind="none", leakage=()))
    assert folds["id"].to_list() == table["id"].to_list()
    assert set(folds["role"]) == {"train"} and set(folds["fold"]) == {0} and folds["part"].null_count() == count

"""The exported folder of a trained and evaluated corpus: card, figures, ONNX."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline import cli, metrics
from pipeline.compose import text
from pipeline.evaluation.evaluate import evaluate
from pipeline.runs.ensemble import find_members
from pipeline.runs.predict import average, predict_clip
from pipeline.runs.pretrained.model import AffectoryModel
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.storage.feature_store import Status, Store
from pipeline.training.stage import train


@pytest.fixture
def corpus(fabricate, monkeypatch):
    """Trained with a linear model and an ensemble of both, evaluated; in its folder."""
    made = fabricate()
    params = made.params(
        training={"seeds": 2, "linear": {}, "ensemble": {"linear": True}},
        temporal={"pooling": "statistics", "width": 16, "heads": 2},
    )
    monkeypatch.chdir(made.folder)
    train(params, made.index(params), **made.files)
    evaluate(params)
    (made.folder / "params.yaml").write_text(text(params.model_dump(mode="json")))
    (made.folder / "data/card.json").write_text(
        json.dumps({"corpus": "demo", "clips": 60, "licence": "none", "languages": ["en"]})
    )
    return made


def run(*words):
    return CliRunner().invoke(cli.app, ["export", *words])


def read_clips(corpus, names):
    """Raw features of the held-out clips."""
    ids = corpus.roles.filter(corpus.roles["role"] == "test")["id"].to_list()
    stores = {name: Store(corpus.path(f"features/{name}.h5")) for name in names}
    clips = []
    for clip in ids:
        entries = {name: store[clip] for name, store in stores.items()}
        clips.append({n: (np.asarray(e.values, np.float32), e.times) for n, e in entries.items() if e.status == Status.OK})
    return ids, clips


def test_each_variant_of_a_run_and_its_card(corpus, tmp_path):
    scores = json.loads((corpus.folder / "reports/metrics.json").read_text())
    for variant, count in (("fused", 2), ("ensemble", 3), ("linear", 1)):
        done = run(str(tmp_path / variant), "--variant", variant, "--licence", "mit")
        assert done.exit_code == 0, done.output
        card = (tmp_path / variant / "README.md").read_text()
        front = YAML(typ="safe").load(card.split("---")[1])
        assert front["license"] == "mit" and {"affectory", "audio", "text", "video"} <= set(front["tags"])
        named = {one["name"]: one["value"] for one in front["model-index"][0]["results"][0]["metrics"]}
        assert named["UAR"] == pytest.approx(scores[variant]["uar"]["mean"], abs=1e-4)
        one = scores[variant]["uar"]
        assert f"| UAR | {one['mean']:.3f} | {one['low']:.3f} to {one['high']:.3f} |" in card
        assert "**Random weights: audio, text, video.**" in card and "seeds 0" in card
        model = AffectoryModel.from_pretrained(tmp_path / variant)
        members = find_members("models/runs", variant)
        runs, weights = [load_run(path) for path in members], list(members.values())
        assert len(model.list_members()) == count
        _, clips = read_clips(corpus, model.config.streams)
        for clip in clips[:4]:
            wanted = average([predict_clip(one, clip) for one in runs], weights)
            given = [{n: torch.from_numpy(np.ascontiguousarray(v[k]))[None] for n, v in clip.items()} for k in (0, 1)]
            found = model(given[0], times=given[1])
            np.testing.assert_allclose(found.probabilities[0].detach(), wanted.probabilities, rtol=0, atol=1e-6)


def test_the_snippet_of_the_card_runs(corpus, tmp_path, monkeypatch, capsys):
    assert run(str(tmp_path / "out")).exit_code == 0
    (snippet,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path / "out")
    exec(compile(snippet, "README.md", "exec"), {})
    assert "tensor" in capsys.readouterr().out


def test_the_first_example_of_the_documentation_runs(corpus, capsys):
    assert run("out").exit_code == 0
    page = (Path(__file__).resolve().parents[2] / "docs/export.md").read_text()
    exec(compile(re.findall(r"```python\n(.*?)```", page, re.S)[0], "docs/export.md", "exec"), {})
    assert "anger" in capsys.readouterr().out


def test_eight_bits_are_measured_on_the_held_out_clips(corpus, tmp_path):
    """UAR before is that of the folder's own predictions of the very clips."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-export.txt)")
    done = run(str(tmp_path / "out"), "--onnx", "--int8")
    assert done.exit_code == 0 and "Left out" not in done.output, done.output
    card = (tmp_path / "out" / "README.md").read_text()
    said = re.search(r"On (\d+) held-out clips UAR is ([\d.]+) before and ([\d.]+) after: ([+-][\d.]+) \(95 % interval", card)
    ids, clips = read_clips(corpus, ("audio", "text", "video"))
    runs = [load_run(path) for path in find_members("models/runs")]
    chosen = [int(average([predict_clip(one, clip) for one in runs]).probabilities.argmax()) for clip in clips]
    truth = dict(tables.read("data/truth.parquet").select("id", "emotion").iter_rows())
    classes = runs[0].model.spec.classes
    uar = metrics.classification([classes.index(truth[one]) for one in ids], chosen, len(classes))["uar"]
    assert int(said[1]) == len(ids) and float(said[2]) == pytest.approx(uar, abs=6e-4)
    assert float(said[4]) == pytest.approx(float(said[3]) - float(said[2]), abs=2e-3)
    assert {path.name for path in (tmp_path / "out/onnx").iterdir()} == {"head.onnx", "head_int8.onnx"}
    (corpus.folder / "data/truth.parquet").unlink()
    done = run(str(tmp_path / "other"), "--onnx", "--int8")
    assert done.exit_code == 0 and "data/truth.parquet is not there" in done.output.replace("\n", " ")
    assert "Left out: what eight bits cost was not measured" in (tmp_path / "other" / "README.md").read_text()

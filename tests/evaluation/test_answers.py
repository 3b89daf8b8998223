"""What a run says is kept with it: asked once, of the right clips, and enough for the stages after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import StoreError
from pipeline.evaluation.evaluate import evaluate
from pipeline.runs.answers import FACTS, FOLDER, read_answers
from pipeline.runs.run import load_run
from pipeline.storage.clip_cache import root
from pipeline.storage.rows import Rows
from pipeline.training import schedule
from pipeline.training.data.dataset import Dataset
from pipeline.training.stage import train

AFTER = """
import json, sys
from pathlib import Path
from pipeline import params as parameters
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.report import write_report
params = parameters.parse(json.loads(Path("params.json").read_text()))
evaluate(params)
write_report(params)
print(json.dumps([name for name in ("torch", "sklearn", "scipy.stats", "transformers") if name in sys.modules]))
"""


def run_stages(corpus, params, out="models/runs"):
    index = corpus.index(params)
    train(params, index, **corpus.files, out=corpus.path(out))
    return index


def test_after_training_nothing_imports_a_framework(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(task={"level": "frame"}, training={"epochs": 1})
    run_stages(corpus, params)
    corpus.path("params.json").write_text(params.model_dump_json())
    path = f"{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", AFTER], cwd=corpus.folder, capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert corpus.path("reports/index.html").is_file() and pl.read_parquet(corpus.path("reports/traces.parquet")).height


def test_what_is_kept_is_what_the_run_says(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(task={"level": "frame"}, training={"epochs": 2, "unimodal": True, "linear": {}})
    index = run_stages(corpus, params)
    data = Dataset.load(index, corpus.files["manifest"], corpus.files["folds"], params, 0)
    test = data.rows("test")
    for variant in ("fused", "audio", "linear"):
        folder = corpus.path(f"models/runs/{variant}/fold0/seed0")
        run, said = load_run(folder), read_answers(folder)
        with torch.inference_mode():
            outputs = run.model(data.read(run.model.spec.streams).batch(test, run.streams))
        assert said.whole["id"].to_list() == [data.ids[row] for row in test.tolist()]
        found = said.whole.select(f"p_{name}" for name in data.classes).to_numpy()
        np.testing.assert_allclose(found, outputs["emotion"].softmax(1).numpy(), atol=1e-6)
        assert set(said.clips["kept"].unique()) == ({"audio"} if variant == "audio" else set(sets_of(("audio", "text", "video"))))
        if variant == "linear":
            assert said.tokens is None and not said.looks.height and said.temperature is None
            continue
        base, mask = run.model.spec.base, data.batch(test, [run.model.spec.base]).streams[run.model.spec.base].mask
        assert base == ("audio" if variant == "audio" else "video") and said.tokens.height == int(mask.sum())
        dimensions = [f"pred_{name}" for name in data.dimension_names]
        np.testing.assert_allclose(said.tokens.select(dimensions).to_numpy(), outputs["frames"][mask].numpy(), atol=1e-6)
        assert said.looks.height == (len(test) if variant == "fused" else 0)


def sets_of(names):
    return ["+".join(n for k, n in enumerate(names) if number >> k & 1) for number in range(2 ** len(names))]


def test_cached_runs_are_found_without_a_feature_read_and_asked_again_when_what_asks_has_changed(fabricate, monkeypatch):
    corpus = fabricate(clips=40)
    params = corpus.params(training={"epochs": 1, "seeds": 2, "linear": {}})
    run_stages(corpus, params)
    kept = {path.parent: json.loads(path.read_text()) for path in root().glob(f"runs/*/run/{FOLDER}/{FACTS}")}
    assert len(kept) == 2 + 1

    def refuse(*_):
        raise AssertionError("features were read")

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "values", property(refuse))
        patch.setattr(Rows, "read", refuse)
        train(params, corpus.path("data/index.h5"), **corpus.files, out=corpus.path("models/again"))
    files = [path.relative_to(corpus.path("models/runs")) for path in corpus.path("models/runs").rglob("*") if path.is_file()]
    for file in files:
        assert corpus.path(f"models/again/{file}").read_bytes() == corpus.path(f"models/runs/{file}").read_bytes(), file
    old = next(iter(kept))
    (old / FACTS).write_text(json.dumps({"code": "of before", "temperature": 7.0, "speakers": {"reason": "x"}}))
    train(params, corpus.path("data/index.h5"), **corpus.files, out=corpus.path("models/again"))
    assert json.loads((old / FACTS).read_text()) == kept[old]


def test_runs_of_other_features_and_runs_that_say_nothing_are_refused(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(training={"epochs": 1})
    index = run_stages(corpus, params)
    facts = corpus.path(f"models/runs/fused/fold0/seed0/{FOLDER}/{FACTS}")
    content = facts.read_text()
    facts.unlink()
    places = {name: corpus.path(f"data/{name}.parquet") for name in ("truth", "truth_annotations", "manifest", "folds")}
    places |= {"runs": corpus.path("models/runs"), "out": corpus.path("reports"), "card": corpus.path("data/card.json")}
    with pytest.raises(StoreError, match="holds no predictions"):
        evaluate(params, index, **places)
    facts.write_text(content)
    evaluate(params, index, **places)
    drawn = pl.read_parquet(places["folds"])
    others = {"train": "test", "test": "train"}
    drawn.with_columns(pl.col("role").replace(others)).write_parquet(places["folds"])
    with pytest.raises(StoreError, match="asked of other clips than are held out now, for instance demo/clip0"):
        evaluate(params, index, **places)
    drawn.write_parquet(places["folds"])
    corpus.store("audio", (6,), 0.9)
    with pytest.raises(StoreError, match="trained on other features of audio"):
        evaluate(params, corpus.index(params), **places)


@pytest.mark.parametrize(
    ("found", "workers", "jobs", "wanted"),
    [
        (["cpu"], 4, 9, ["cpu"] * 4),
        (["cpu"], 4, 4, ["cpu"] * 2),
        (["cpu"], 1, 9, []),
        (["cpu"], 0, 9, []),
        (["cpu"], 4, 3, []),
        (["cuda:0"], 4, 9, []),
        (["cuda:0", "cuda:2"], 1, 9, ["cuda:0", "cuda:2"]),
        (["cuda:0", "cuda:1", "cuda:2"], 1, 5, ["cuda:0", "cuda:1"]),
    ],
)
def test_a_worker_per_gpu_or_as_many_as_asked_for(fabricate, monkeypatch, found, workers, jobs, wanted):
    params = fabricate(clips=4).params(run={"workers": workers})
    monkeypatch.setattr(schedule, "pick_devices", lambda name: found)
    assert schedule.choose_workers(params, jobs) == wanted

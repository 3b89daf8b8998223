"""All runs known from the same inputs: found without a framework, and by nothing but the same inputs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.training import every
from pipeline.training.recall import describe_inputs
from pipeline.training.stage import train

ROOT = Path(__file__).resolve().parents[2]
AGAIN = """
import json, sys
from pathlib import Path
from pipeline import params as parameters
from pipeline.training.stage import train
index, out, files = json.loads(sys.argv[1])
made = train(parameters.parse(json.loads(Path("params.json").read_text())), index, **files, out=out)
known = ("torch", "sklearn", "scipy", "transformers")
print(json.dumps([[str(path) for path in made], [name for name in known if name in sys.modules]]))
"""


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_known_runs_are_copied_without_a_framework(fabricate):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1, "seeds": 2, "linear": {}}, fusion={"name": "gated"})
    index, out = corpus.index(params), corpus.path("models/runs")
    made = train(params, index, **corpus.files, out=out)
    before = files(out)
    shutil.rmtree(out)
    corpus.path("params.json").write_text(params.model_dump_json())
    words = json.dumps([str(index), str(out), {name: str(path) for name, path in corpus.files.items()}])
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, words],
        cwd=corpus.folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[str(path) for path in made], []]
    assert files(out) == before


def test_when_one_is_gone_all_are_looked_for_by_their_own_keys(fabricate, monkeypatch):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1, "seeds": 2})
    index, out = corpus.index(params), corpus.path("models/runs")
    train(params, index, **corpus.files, out=out)
    before, longer, run_jobs = files(out), [], every.run_jobs
    monkeypatch.setattr(every, "run_jobs", lambda *given: longer.append(1) or run_jobs(*given))
    shutil.rmtree(next((corpus.folder.parent / "cache/runs").iterdir()))
    for times in (1, 1):  # the second time all are known again
        train(params, index, **corpus.files, out=out)
        assert files(out) == before and len(longer) == times


def test_every_difference_is_one(fabricate, monkeypatch, tmp_path):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1})
    paths = [corpus.index(params), *corpus.files.values()]
    parts = tmp_path / "parts" / "fusion"
    parts.mkdir(parents=True)
    own, first = parts / "mine.py", describe_inputs(params, paths)
    found = [first]
    assert describe_inputs(corpus.params(training={"epochs": 1}, run={"workers": 7, "batch": 0.5}), paths) == first
    for groups in ({"training": {"epochs": 2}}, {"training": {"epochs": 1}, "fusion": {"name": "gated"}}):
        found.append(describe_inputs(corpus.params(**groups), paths))
    monkeypatch.setenv("AFFECTORY_PARTS", str(parts.parent))
    for text in ("one = 1", "one = 2", "one = 1  # a word"):
        own.write_text(text)
        found.append(describe_inputs(params, paths))
    monkeypatch.delenv("AFFECTORY_PARTS")
    for path in paths:
        content = Path(path).read_bytes()
        Path(path).write_bytes(content + b" ")
        found.append(describe_inputs(params, paths))
        Path(path).write_bytes(content)
    assert None not in found and len(set(found)) == len(found) == 10
    assert describe_inputs(params, paths) == first


@pytest.mark.parametrize(
    "groups",
    [
        {"run": {"device": "cuda"}},
        {"training": {"curriculum": {"name": "preset", "options": {"file": "order.csv"}}}},
        {"fusion": {"name": "llama", "options": {"weights": "local:model"}}},
        {"fusion": {"name": "mine", "options": {"list": ["words"]}}},
    ],
)
def test_what_may_read_other_files_or_runs_on_a_gpu_takes_the_longer_way(fabricate, groups, monkeypatch):
    corpus = fabricate(clips=30)
    monkeypatch.chdir(corpus.folder)
    Path("words").mkdir()
    params = corpus.params(**groups)
    assert describe_inputs(params, [*corpus.files.values()]) is None

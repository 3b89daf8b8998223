"""What made the figures: commit, versions, seeds, and what differs from the run before."""

import json
import subprocess

import polars as pl
import pytest

from pipeline.evaluation import provenance, record
from pipeline.evaluation.sums import Groups
from tests.fabricated_report import make_params

GROUPS = Groups("speaker", ["speaker a", "speaker b", "clip c"], {}, 1)
TABLE = pl.DataFrame({"seed": [1, 0, 1], "fold": [0, 0, 1]})


def describe(tmp_path, params=None, **headlines):
    return record.describe_run(params or make_params(), TABLE, GROUPS, headlines or {"uar": 0.5}, tmp_path / "last.json")


def test_seeds_versions_and_groups_are_listed(tmp_path):
    found = describe(tmp_path)
    assert (found["seeds"], found["folds"]) == ([0, 1], [0, 1])
    assert (found["unit"], found["groups"], found["alone"]) == ("speaker", 2, 1)
    assert {"torch", "numpy"} < set(found["versions"]) and found["before"] is None


def test_what_differs_from_the_last_run_is_told_also_when_the_same_is_evaluated_twice(tmp_path):
    describe(tmp_path, uar=0.4)
    changed = make_params(fusion={"name": "concat"})
    for _ in range(2):
        before = describe(tmp_path, changed, uar=0.5)["before"]
        assert before["summary"] == {"uar": 0.4}
        assert ["fusion.name", "gated", "concat"] in before["changed"]
        assert not any(key.startswith("run.") for key, *_ in before["changed"])


def test_parameters_that_decide_no_figure_are_no_difference(tmp_path):
    describe(tmp_path)
    assert describe(tmp_path, make_params(run={"workers": 7}))["before"] is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"now": 3}', '{"now": {"params": {}}}', '{"now": {"params": 1, "summary": 2}}'])
def test_a_damaged_memory_is_no_memory(tmp_path, text):
    (tmp_path / "last.json").write_text(text)
    assert describe(tmp_path)["before"] is None
    assert json.loads((tmp_path / "last.json").read_text())["now"]["summary"] == {"uar": 0.5}


def test_the_commit_and_whether_the_code_is_it(tmp_path):
    assert record.find_commit(tmp_path) is None

    def git(*words):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True
        )

    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "First")
    (tmp_path / "notes").write_text("not code")
    found = record.find_commit(tmp_path)
    assert len(found) == 12
    (tmp_path / "pipeline" / "__init__.py").write_text("x = 1\n")
    assert record.find_commit(tmp_path) == f"{found}, changed"


@pytest.mark.parametrize(
    ("weights", "trunk", "said"),
    [
        ("random:0", False, ["audio", "fusion"]),
        ("random:0", True, ["audio"]),
        ("local:x", False, ["audio"]),
        (None, False, ["audio"]),
    ],
)
def test_a_fusion_whose_language_model_learned_nothing_is_named_with_the_streams(weights, trunk, said):
    """A trunk brings a language model of its own, whose stream says what it is."""
    params = make_params()
    options = {} if weights is None else {"weights": weights}
    streams = {"audio": {"encoder": "trunk" if trunk else "hubert"}}
    params = params.model_copy(
        update={
            "fusion": params.fusion.model_copy(update={"options": options}),
            "streams": {name: next(iter(params.streams.values())).model_copy(update=values) for name, values in streams.items()},
        }
    )
    facts = [
        provenance.StreamFacts("audio", "audio", "x", "random:1", True),
        provenance.StreamFacts("text", "text", "x", "hf:a", False),
    ]
    assert provenance.name_stand_ins(params, facts) == said

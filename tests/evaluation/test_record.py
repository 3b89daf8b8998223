"""What made the figures: commit, versions, seeds, and what differs from the run before."""

import json
import subprocess

import numpy as np
import polars as pl
import pytest

from pipeline.errors import StoreError
from pipeline.evaluation import provenance, record
from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.sentences import tell_headlines
from pipeline.evaluation.sums import Groups
from pipeline.study.kept import read_kept
from tests.fabricated_report import make_params

GROUPS = Groups("speaker", ["speaker a", "speaker b", "clip c"], {}, 1)


def decide(right, chance=0):
    """Eight clips of each of eight speakers, two seeds; `right` of the decisions are, at random."""
    rng, rows = np.random.default_rng(chance), []
    for seed in range(2):
        for i in range(64):
            truth = i % 2
            guess = truth if rng.random() < right else 1 - truth
            clip = {"variant": "fused", "fold": i % 2, "seed": seed, "id": f"clip{i:02d}", "speaker": f"s{i // 8}"}
            chances = {f"p_{name}": 0.9 if guess == k else 0.1 for k, name in enumerate(NAMES)}
            rows.append(clip | {"truth": NAMES[truth], "predicted": NAMES[guess]} | chances)
    return pl.DataFrame(rows)


NAMES = ("anger", "joy")
TABLE = decide(0.5)


def describe(tmp_path, params=None, table=TABLE, **headlines):
    return record.describe_run(params or make_params(), table, GROUPS, headlines or {"uar": 0.5}, tmp_path / "last.json")


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


def test_figures_of_the_last_run_are_compared_on_the_same_clips(tmp_path):
    better = decide(0.95, 1)
    describe(tmp_path, uar=0.4)
    for _ in range(2):
        before = describe(tmp_path, table=better, uar=0.9)["before"]
        found = {row["metric"]: row for row in before["figures"]}
        right = [(one["truth"] == one["predicted"]).mean() for one in (TABLE, better)]
        row = found["accuracy"]
        assert [row["before"]["mean"], row["after"]["mean"]] == pytest.approx(right, abs=1e-6)
        assert row["difference"]["mean"] == pytest.approx(right[1] - right[0], abs=1e-6)
        assert row["difference"]["low"] > 0.2 and row["p"] <= 2 / 2**8, "eight speakers, all swaps"
        assert before["made"] == [] and set(found) == {"uar", "macro_f1", "weighted_f1", "accuracy"}
    rows = provenance.compare_figures({"before": before}, {})
    assert [row["metric"] for row in rows][0] == "uar" and rows[0]["difference"].bounded and rows[0]["p"] == "0.008"


def test_another_commit_and_other_versions_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "find_commit", lambda: "aaaa")
    describe(tmp_path, uar=0.4)
    monkeypatch.setattr(record, "find_commit", lambda: "bbbb")
    assert describe(tmp_path, uar=0.5)["before"]["made"] == [["commit of the code", "aaaa", "bbbb"]]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (TABLE.filter(pl.col("id") != "clip07"), "not tested on the same clips (64 and 63, for instance clip07)"),
        (TABLE.rename({"p_joy": "p_fear"}), "do not predict the same"),
        (None, "were not kept"),
        (b"no table", "were not kept"),
    ],
)
def test_what_is_not_paired_says_why(tmp_path, other, said):
    describe(tmp_path, uar=0.4)
    if not isinstance(other, pl.DataFrame):
        now = tmp_path / "last" / "now.parquet"
        now.unlink() if other is None else now.write_bytes(other)
    before = describe(tmp_path, table=other if isinstance(other, pl.DataFrame) else TABLE, uar=0.5)["before"]
    assert said in before["reason"] and before["summary"] == {"uar": 0.4}
    assert provenance.compare_figures({"before": before}, {"uar": Interval(0.5)})[0]["before"].mean == 0.4


def test_the_run_before_is_compared_by_name(tmp_path):
    describe(tmp_path / "reports", make_params(fusion={"name": "concat"}), uar=0.4)
    with pytest.raises(StoreError, match="no earlier run is kept"):
        read_kept("last", tmp_path)
    describe(tmp_path / "reports", table=decide(0.9), uar=0.5)
    found = read_kept("last", tmp_path)
    assert found.predictions.equals(TABLE) and found.params["fusion.name"] == "concat" and found.name == "last"


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


def test_the_figures_in_a_terminal(tmp_path):
    assert tell_headlines(tmp_path) == []
    found = {"accuracy": 0.84, "uar": 0.8452, "uar_low": 0.745, "uar_high": 0.9416, "uar_linear": 0.976, "uar_best_alone": 0.74}
    (tmp_path / "summary.json").write_text(json.dumps(found))
    first = "UAR 0.845 (95 % CI 0.745 to 0.942); linear 0.976; best alone 0.740"
    assert tell_headlines(tmp_path) == [first, "Accuracy 0.840"]
    few = {"uar": 0.5, "uar_low": None, "uar_high": None, "transductive": "speaker"}
    (tmp_path / "summary.json").write_text(json.dumps(few))
    assert tell_headlines(tmp_path) == [
        "UAR 0.500 (no interval)",
        "Transductive: features normalised per speaker with unlabelled test clips.",
    ]

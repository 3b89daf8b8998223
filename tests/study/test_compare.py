"""Runs of the workspace, of commits and of experiments, compared on the same clips."""

import os
import subprocess
import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ParamsError, StoreError
from pipeline.evaluation.sums import keep_frames
from pipeline.study.compare import COLUMNS, FIGURES, compare_runs, format_comparison
from pipeline.study.kept import Kept, read_kept

CLASSES = ("anger", "joy")


def predictions(right=0.7, *, speakers=8, seeds=2, chance=0, **columns):
    """Eight clips of each speaker, four of a class; `right` of the decisions of each speaker and class are, at random."""
    rng, rows = np.random.default_rng(chance), []
    for seed in range(seeds):
        for i in range(speakers * 8):
            truth = i % 2
            says = truth if rng.random() < right else 1 - truth
            rows.append(
                {
                    **{"variant": "fused", "fold": 0, "seed": seed, "id": f"clip{i:03d}", "speaker": f"s{i // 8}"},
                    **{"truth": CLASSES[truth], "predicted": CLASSES[says]},
                    **{f"p_{name}": float(0.2 + 0.6 * (says == k)) for k, name in enumerate(CLASSES)},
                    **columns,
                }
            )
    return pl.DataFrame(rows)


def kept(name, table, **params):
    return Kept(name, table, {"training.select": "uar", "training.normalise": "train", **params})


def recall(table):
    """Mean over seeds of the mean recall, counted by hand."""
    hit = table.with_columns(hit=pl.col("truth") == pl.col("predicted"))
    return hit.group_by("seed", "truth").agg(pl.col("hit").mean())["hit"].mean()


def test_differences_are_those_of_the_same_clips():
    weak, strong = predictions(0.5), predictions(0.95, chance=1)
    found = compare_runs([kept("a", weak), kept("b", strong), kept("c", weak)], "fused")
    first, second, third = (one for one in found if one.metric == "uar")
    assert first.figure.mean == pytest.approx(recall(weak)) and second.figure.mean == pytest.approx(recall(strong))
    assert second.difference.mean == pytest.approx(recall(strong) - recall(weak)) and second.difference.low > 0.2
    assert second.p <= 4 / 2**8 and second.corrected == pytest.approx(2 * second.p)  # exact, of two comparisons
    assert third.difference.mean == 0 and third.p == 1
    assert np.isnan(first.difference.mean)
    assert {one.metric for one in found} == {"uar", "macro_f1", "weighted_f1", "accuracy"}


def test_the_table_says_what_differs_in_at_most_ten_columns():
    table = predictions()
    changed = {f"loss.term{k}": k for k in range(7)}
    runs = [kept("a", table, **{"fusion.name": "gated"}), kept("b", table, **changed, **{"training.normalise": "speaker"})]
    text = format_comparison(runs, compare_runs(runs, "fused"), "fused")
    lines = text.splitlines()
    headings = lines[2].split("  ")
    assert len([one for one in headings if one.strip()]) == COLUMNS and "p, Holm" not in text
    assert "fused, 64 held-out clips; differences to a" == lines[0]
    for name in [*changed, "fusion.name"]:
        assert name in text
    assert "training.normalise: a train, b speaker" in text and "b is transductive" in text
    assert format_comparison(runs[:1] * 2, compare_runs(runs[:1] * 2, "fused"), "fused").endswith("All parameters are the same.")
    three = format_comparison([*runs, runs[0]], compare_runs([*runs, runs[0]], "fused"), "fused")
    assert all(heading in three for heading in FIGURES)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (predictions(speakers=7), r"not tested on the same clips \(64 and 56, for instance clip056\)"),
        (predictions().with_columns(truth=pl.lit("joy")), "with other labels or speakers"),
        (predictions().with_columns(speaker=pl.lit("s0")), "with other labels or speakers"),
        (predictions(p_fear=0.0), "do not predict the same: anger, joy; anger, joy, fear"),
        (predictions(seeds=3), "have 2 and 3 seeds"),
        (pl.concat([predictions(), predictions().with_columns(fold=pl.lit(1, pl.Int64))]), "some of them more often"),
    ],
)
def test_what_is_not_paired_is_one_line(other, said):
    with pytest.raises(StoreError, match=f"a and b .*{said}") as caught:
        compare_runs([kept("a", predictions()), kept("b", other)], "fused")
    assert "\n" not in str(caught.value)


def test_one_seed_is_compared_with_several():
    found = compare_runs([kept("a", predictions(seeds=1)), kept("b", predictions(0.95, chance=1))], "fused")
    assert found[1].p < 0.05


def test_a_variant_that_is_not_there_is_one_line():
    with pytest.raises(ParamsError, match="variant of a 'linaer'.*fused"):
        compare_runs([kept("a", predictions()), kept("b", predictions())], "linaer")


def test_one_model_of_a_run_with_another_model_of_another():
    weak, strong = predictions(0.5), predictions(0.95, chance=1)
    both = pl.concat([weak.with_columns(variant=pl.lit("linear")), strong])
    runs = [replace(kept("a:linear", both), variant="linear"), replace(kept("b:fused", both), variant="fused")]
    found = compare_runs(runs, "ensemble")  # neither is asked for what it does not name
    assert [one.figure.mean for one in found[:2]] == pytest.approx([recall(weak), recall(strong)])
    assert format_comparison(runs, found, "ensemble").startswith("64 held-out clips; differences to a:linear")


def over_time(noise, *, seeds=2, chance=0):
    """(predictions with frames, their frames): valence of three clips of each of eight speakers, twenty instants each."""
    rng, rows = np.random.default_rng(chance), []
    for seed in range(seeds):
        for i in range(24):
            truth = 0.6 * np.sin(i + np.arange(20) / 3)
            said = truth + rng.normal(0, noise, 20)
            rows.append(
                pl.DataFrame(
                    {"id": f"clip{i:02d}", "time": np.arange(20) / 25, "truth_valence": truth, "pred_valence": said}
                ).with_columns(variant=pl.lit("fused"), fold=pl.lit(i % 2), seed=pl.lit(seed), speaker=pl.lit(f"s{i // 3}"))
            )
    frames = pl.concat(rows)
    keys = ["variant", "fold", "seed", "id", "speaker"]
    clips = frames.group_by(keys, maintain_order=True).agg(pl.col("truth_valence").mean(), valence=pl.col("pred_valence").mean())
    return keep_frames(clips.with_columns(truth=pl.lit(None, pl.String)), frames, ("valence",)), frames


def concordance(frames):
    """Mean over seeds of the CCC of all frames, by the formula."""
    found = []
    for seed in frames.partition_by("seed"):
        y, p = seed["truth_valence"].to_numpy(), seed["pred_valence"].to_numpy()
        found.append(2 * np.cov(y, p, bias=True)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2))
    return np.mean(found)


def test_frames_are_compared_pooled_and_paired_by_speaker():
    (weak, ws), (strong, ss) = over_time(0.5), over_time(0.2, chance=1)
    runs = [kept("a", weak, **{"training.select": "ccc"}), kept("b", strong, **{"training.select": "ccc"})]
    first, second = (one for one in compare_runs(runs, "fused") if one.metric == "frame_ccc")
    assert first.figure.mean == pytest.approx(concordance(ws)) and second.figure.mean == pytest.approx(concordance(ss))
    assert second.difference.mean == pytest.approx(concordance(ss) - concordance(ws)) and second.p <= 4 / 2**8
    assert 0 < second.difference.low < second.difference.mean < second.difference.high
    text = format_comparison(runs, compare_runs(runs, "fused"), "fused")
    assert "CCC, mean over frames, pooled" in text and "not compared" not in text
    older = [runs[0], kept("old", strong.drop("frames_valence"), **{"training.select": "ccc"})]
    text = format_comparison(older, compare_runs(older, "fused"), "fused")
    assert "over frames" not in text and "Figures of frames are not compared: old kept none." in text


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A commit `first`, an experiment `bold-try` upon it, and a workspace with a third run."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("checkout")

    def git(*words):
        who = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True, env=os.environ | who)
        return done.stdout.strip()

    def run(right, fusion):
        (folder / "reports").mkdir(exist_ok=True)
        predictions(right).write_parquet(folder / "reports/predictions.parquet")
        (folder / "params.yaml").write_text(f"fusion: {{name: {fusion}}}\ntraining: {{select: uar}}\nrun: {{workers: 0}}\n")

    git("init", "-q", "-b", "main")
    repo = Repo.init(str(folder))
    for right, fusion in ((0.5, "gated"), (0.95, "late")):
        run(right, fusion)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a library of DVC
            repo.add([str(folder / "reports/predictions.parquet")])
        git("add", "-A")
        git("commit", "-qm", fusion)
    tried, first = git("rev-parse", "HEAD"), git("rev-parse", "HEAD~1")
    git("update-ref", f"refs/exps/{first[:2]}/{first[2:]}/bold-try", tried)
    git("reset", "-q", "--hard", first)
    git("tag", "first")
    run(0.7, "adaptive")
    yield folder
    repo.close()


def test_runs_of_commits_experiments_and_the_workspace(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    names = {"first": ("gated", 0.5), "bold-try": ("late", 0.95), "workspace": ("adaptive", 0.7)}
    for name, (fusion, right) in names.items():
        found = read_kept(name)
        assert found.params == {"fusion.name": fusion, "training.select": "uar"}
        assert found.predictions.equals(predictions(right))
    shown = CliRunner().invoke(app, ["compare"]).output
    assert "differences to HEAD" in shown and "workspace  UAR" in shown and "adaptive" in shown
    shown = CliRunner().invoke(app, ["compare", "first", "bold-try", "workspace"]).output
    assert "bold-try" in shown and "late" in shown and "p, Holm" in shown
    assert read_kept("first:fused").predictions.equals(predictions(0.5)) and read_kept("first:fused").variant == "fused"
    shown = CliRunner().invoke(app, ["compare", "first:fused", "workspace:fused"]).output
    assert "differences to first:fused" in shown and "workspace:fused  UAR" in shown


def test_parameters_are_named_as_their_file_names_them(tmp_path):
    (tmp_path / "reports").mkdir()
    predictions().write_parquet(tmp_path / "reports/predictions.parquet")
    (tmp_path / "params.yaml").write_text("loss: {local: {on: projection, weight: 1.0e-3}}\n")
    assert read_kept("workspace", tmp_path).params == {"loss.local.on": "projection", "loss.local.weight": 0.001}


def test_a_run_that_is_not_there_is_one_line(checkout, tmp_path):
    with pytest.raises(StoreError, match="nothing is no commit and no experiment") as caught:
        read_kept("nothing", checkout)
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="the workspace has no reports/predictions"):
        read_kept("workspace", tmp_path)
    with pytest.raises(StoreError, match="HEAD is no commit"):
        read_kept("HEAD", tmp_path)
    cached = checkout / ".dvc/cache"
    cached.rename(checkout / "elsewhere")
    try:
        with pytest.raises(StoreError, match=r"first has no reports/predictions.parquet that is kept here: commit dvc.lock"):
            read_kept("first", checkout)
    finally:
        (checkout / "elsewhere").rename(cached)

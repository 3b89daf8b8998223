"""Every recipe runs on a replica of its corpus, by the commands a user types."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import h5py
import polars as pl
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.compose import compose
from pipeline.data import manifest as manifests
from pipeline.data import split
from pipeline.features.store import Status
from pipeline.params import Params, read

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))
#: Family → the seeded stand-in of its class; what needs no weights stays as it is.
STAND_INS = {"clip": "clip_tiny", "hubert": "hubert_tiny", "text": "bert_tiny", "videomae": "videomae_tiny",
             "whisper": "whisper_random"}
PHASE_ONE = (("corpus", "prepare"), ("manifest",), ("frames",), ("audio",), ("faces",), ("transcribe",))
QUICK = ("training=quick", "training.epochs=2", "training.seeds=1", "training.unimodal=false", "temporal.width=16")


def _replicas():
    # Loaded by path: test folders are not packages.
    specification = importlib.util.spec_from_file_location("replicas", Path(__file__).with_name("replicas.py"))
    module = sys.modules["replicas"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


REPLICAS = _replicas().REPLICAS


def overrides(recipe: str, root: Path, more: tuple[str, ...] = ()) -> list[str]:
    """What stands after `-S`: the recipe, where the corpus is, and stand-ins for encoders of the hub."""
    streams = compose([f"recipe={recipe}"], ROOT / "conf")["streams"]
    swaps = [f"stream@streams.{name}={STAND_INS[stream['encoder']]}" for name, stream in streams.items()
             if not stream["weights"].startswith(("random:", "file:"))]
    return [f"recipe={recipe}", f"corpus.root={root}", *swaps, *more]


def command(*words: str) -> None:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """`workspace(recipe, *overrides)` fills the replica, writes params.yaml and goes there."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(folder)

    def make(recipe: str, *more: str):
        # The demo's stage `corpus` writes below data/corpus, wherever one stands.
        root = folder / "data" / "corpus" if recipe == "demo" else tmp_path / recipe
        root.mkdir(parents=True)
        expected = REPLICAS[recipe](root)
        command("params", "--write", "run.workers=0", "run.device=cpu",
                *overrides(recipe, root, (*expected.overrides, *more)))
        return expected, read()

    return make


def phase_one(params: Params) -> None:
    for words in PHASE_ONE:
        command(*words)
    for name in params.streams:
        command("extract", name)
    command("index")


def test_every_recipe_has_a_replica():
    assert RECIPES == sorted(REPLICAS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_phase_one(recipe, workspace):
    expected, params = workspace(recipe)
    phase_one(params)
    table = pl.read_parquet("data/manifest.parquet")
    assert table.height == expected.clips
    # A film without a row (MELD has them) is said; nothing else is out of order.
    assert set(pl.read_parquet("data/quarantine.parquet")["reason"]) <= {"surplus"}
    for stage in ("frames", "audio", "faces"):
        assert pl.read_parquet(f"data/{stage}.quarantine.parquet").is_empty()
    with h5py.File("data/index.h5") as index:
        assert set(index["streams"]) == set(params.streams)
        for name in params.streams:
            store = index[f"streams/{name}/store"]
            assert [i.decode() for i in store["ids"]] == table["id"].to_list()
            status, rows = store["status"][:], store["offsets"][1:] - store["offsets"][:-1]
            # A modality a clip lacks is masked: a status and no row, never a row of zeros.
            assert set(status) <= {Status.OK, Status.MISSING} and ((rows > 0) == (status == Status.OK)).all()
            assert (status != Status.OK).sum() == expected.lacking.get(name, 0), name
    truth_is_apart(table, params, expected)


def truth_is_apart(table: pl.DataFrame, params: Params, expected) -> None:
    truth, folds = pl.read_parquet("data/truth.parquet"), pl.read_parquet("data/folds.parquet")
    assert folds.filter(pl.col("role") == "test")["id"].n_unique() == truth.height
    labels = [name for name in manifests.LABELS if truth[name].null_count() < truth.height]
    assert bool(expected.labels) == ("emotion" in labels) or params.recipe == "demo"
    if expected.labels:
        assert set(truth["emotion"]) | set(table["emotion"].drop_nulls()) == set(expected.labels)
    if split.single(params.protocol):
        held = table.filter(pl.col("id").is_in(truth["id"].implode()))
        assert held.height == truth.height < table.height
        assert all(held[name].is_null().all() for name in manifests.LABELS)
        assert not set(pl.read_parquet("data/annotations.parquet")["id"]) & set(truth["id"])
    else:
        assert truth.height == table.height
    group = params.protocol.group
    if params.protocol.kind != "official" and group != "id":
        joined = folds.join(table.select("id", group), on="id")
        for _, fold in joined.group_by("fold"):
            parts = [set(fold.filter(pl.col("role") == role)[group]) for role in split.ROLES]
            assert parts[0] and parts[2] and not parts[2] & (parts[0] | parts[1])


@pytest.mark.parametrize(("recipe", "more", "metrics"), [
    ("meld", (), {"uar", "weighted_f1"}), ("ch_sims", (), {"valence_ccc"}),
    ("afew_va", ("protocol.folds=2", "+stream@streams.face=face_mae_tiny"), {"valence_ccc", "arousal_ccc"}),
])
def test_phase_two(recipe, more, metrics, workspace):
    """An emotion per clip, a sentiment per clip, valence and arousal per frame."""
    _, params = workspace(recipe, *QUICK, *more)
    phase_one(params)
    for stage in ("train", "evaluate", "report"):
        command(stage)
    fused = json.loads(Path("reports/metrics.json").read_text())["fused"]
    assert metrics <= set(fused), fused
    predicted = pl.read_parquet("reports/predictions.parquet")
    assert set(predicted["id"]) == set(pl.read_parquet("data/truth.parquet")["id"])
    if recipe == "afew_va":
        faces_are_where_the_corpus_says()
        every_frame_meets_its_own_truth()
    assert "Random weights" in Path("reports/index.html").read_text()


def faces_are_where_the_corpus_says() -> None:
    """No detector finds a face in these pictures; clip 012 has the flattened JSON, which brings no landmarks."""
    boxes = pl.read_parquet("data/faces.parquet")
    assert sorted(boxes["id"].unique()) == [f"afew_va/{clip:03}" for clip in range(1, 12)]
    first = boxes.filter(pl.col("id") == "afew_va/001").sort("start")
    assert first.height == 8 and first["top"].to_list() == pytest.approx([12] * 8, abs=0.1)
    assert first["left"].to_list()[1:7] == pytest.approx([2, 4, 6, 8, 10, 12], abs=0.1)  # the patch moves
    with h5py.File("features/face.h5") as store:
        assert store["status"][:].tolist() == [Status.OK] * 11 + [Status.MISSING]


def every_frame_meets_its_own_truth() -> None:
    traces, truth = pl.read_parquet("reports/traces.parquet"), pl.read_parquet("data/truth_annotations.parquet")
    assert traces.height == truth.height == 12 * 8
    for name in ("valence", "arousal"):
        assert traces.sort("id", "time")[f"truth_{name}"].to_list() == pytest.approx(
            truth.sort("id", "time")[name].to_list(), abs=1e-5)

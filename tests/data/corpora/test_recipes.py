"""Every recipe runs on a replica of its corpus, by the commands a user types."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import polars as pl
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.compose import compose
from pipeline.data import split
from pipeline.params import Params, read
from pipeline.storage import tables
from pipeline.storage.feature_store import Status
from pipeline.storage.media_store import Media

ROOT = Path(__file__).resolve().parents[3]
#: Stages that go before those of a modality.
BEFORE = ("corpus", "link", "manifest")
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))
#: Family → the seeded stand-in of its class; what needs no weights stays as it is.
STAND_INS = {
    "clip": "clip_tiny",
    "clip of faces": "face_mae_tiny",
    "dialogue": "gpt2_tiny",
    "hubert": "hubert_tiny",
    "mosaic": "mosaic_tiny",
    "text": "bert_tiny",
    "trunk": "llama_tiny_trunk",
    "timm": "clip_tiny",  # of frames; timm's own looks at faces
    "videomae": "videomae_tiny",
    "whisper": "whisper_random",
}
PHASE_ONE = (("corpus", "prepare"), ("manifest",), ("frames",), ("audio",), ("faces",), ("transcribe",))
#: Recipes that are trained too: an emotion per clip, with turns that have none; a sentiment per clip; valence and arousal per
#: frame.
QUICK = ("training=quick", "training.epochs=2", "training.seeds=1", "training.unimodal=false", "temporal.width=16")
TRAINED = {
    "meld": QUICK,
    "hlm12erc": QUICK,
    "iemocap": (*QUICK, "context=attention"),
    "ch_sims": QUICK,
    "afew_va": (*QUICK, "+stream@streams.face=face_mae_tiny"),
}


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
    swaps = [
        f"stream@streams.{name}={stand_in(stream)}"
        for name, stream in streams.items()
        if not stream["weights"].startswith(("random:", "file:", "none"))
    ]
    return [f"recipe={recipe}", f"corpus.root={root}", "run.workers=0", "run.device=cpu", *swaps, *more]


def stand_in(stream: dict) -> str:
    family = stream["encoder"]
    return STAND_INS["clip of faces" if (family, stream["modality"]) == ("clip", "face") else family]


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
        command("params", "--write", *overrides(recipe, root, (*expected.overrides, *more)))
        return expected, read()

    return make


def phase_one(params: Params) -> None:
    for words in PHASE_ONE:
        command(*words)
    for name in params.streams:
        command("adapt", name)
        command("extract", name)
    command("index")


def test_every_recipe_has_a_replica():
    assert RECIPES == sorted(REPLICAS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe(recipe, workspace):
    """Phase 1 of each; of three kinds of task phase 2 as well."""
    expected, params = workspace(recipe, *TRAINED.get(recipe, ()))
    phase_one(params)
    table = pl.read_parquet("data/manifest.parquet")
    assert table.height == expected.clips
    # A film without a row (MELD has them) is said; nothing else is out of order.
    assert set(pl.read_parquet("data/quarantine.parquet")["reason"]) <= {"surplus"}
    for stage in ("frames", "audio"):
        assert pl.read_parquet(f"data/{stage}.quarantine.parquet").is_empty()
    # A clip without a face is noted; none is lost.
    assert pl.read_parquet("data/faces.quarantine.parquet")["reason"].to_list() == ["few_faces"] * expected.lacking.get("face", 0)
    stores_are_whole(table, params, expected)
    truth_is_apart(table, params, expected)
    if recipe in TRAINED:
        phase_two(params)


def stores_are_whole(table: pl.DataFrame, params: Params, expected) -> None:
    with h5py.File("data/index.h5") as index:
        assert set(index["streams"]) == set(params.streams)
        for name in params.streams:
            store = index[f"streams/{name}/store"]
            assert [i.decode() for i in store["ids"]] == table["id"].to_list()
            status, rows = store["status"][:], store["offsets"][1:] - store["offsets"][:-1]
            # A modality a clip lacks is masked: a status and no row, never a row of zeros.
            assert set(status) <= {Status.OK, Status.MISSING} and ((rows > 0) == (status == Status.OK)).all()
            assert (status != Status.OK).sum() == expected.lacking.get(name, 0), name


def truth_is_apart(table: pl.DataFrame, params: Params, expected) -> None:
    truth, folds = pl.read_parquet("data/truth.parquet"), pl.read_parquet("data/folds.parquet")
    assert folds.filter(pl.col("role") == "test")["id"].n_unique() == truth.height
    labels = [name for name in tables.LABELS if truth[name].null_count() < truth.height]
    assert bool(expected.labels) == ("emotion" in labels) or params.recipe == "demo"
    if expected.labels:
        assert set(truth["emotion"]) | set(table["emotion"].drop_nulls()) == set(expected.labels)
    if split.is_single(folds):
        held = table.filter(pl.col("id").is_in(truth["id"].implode()))
        assert held.height == truth.height < table.height
        assert all(held[name].is_null().all() for name in tables.LABELS)
        assert not set(pl.read_parquet("data/annotations.parquet")["id"]) & set(truth["id"])
    else:
        assert truth.height == table.height
    group = params.protocol.group
    if params.protocol.kind != "official" and group != "id":
        joined = folds.join(table.select("id", group), on="id")
        for _, fold in joined.group_by("fold"):
            parts = [set(fold.filter(pl.col("role") == role)[group]) for role in split.ROLES]
            assert parts[0] and parts[2] and not parts[2] & (parts[0] | parts[1])


def phase_two(params: Params) -> None:
    for stage in ("train", "evaluate", "report"):
        command(stage)
    fused = json.loads(Path("reports/metrics.json").read_text())["fused"]
    assert {"uar", "weighted_f1"} <= set(fused) if params.task.emotion else "uar" not in fused
    assert {f"{name}_ccc" for name in params.task.dimensions} <= set(fused)
    predicted = pl.read_parquet("reports/predictions.parquet")
    assert set(predicted["id"]) == set(pl.read_parquet("data/truth.parquet")["id"])
    if params.recipe == "afew_va":
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
    assert traces.height == truth.height == traces["id"].n_unique() * 8 > 8
    for name in ("valence", "arousal"):
        assert traces.sort("id", "time")[f"truth_{name}"].to_list() == pytest.approx(
            truth.sort("id", "time")[name].to_list(), abs=1e-5
        )


@pytest.mark.parametrize(
    ("recipe", "stream", "changes"),
    [
        ("afew_va_cached", "face=face_mae_tiny", ["protocol.folds=2"]),
        ("afew_va", "video=clip_tiny", ["+streams.video.adapt={objective: dimensions, epochs: 1, frames: 4}"]),
    ],
)
def test_the_generated_films_go_through_both_phases(recipe, stream, changes, tmp_path, monkeypatch):
    """From drawing the pictures to the file to hand in, with other encoders and fewer films than documented."""
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(tmp_path)
    small = {"actors": 5, "films": 2, "least": 6, "most": 9, "size": 48}
    options = [f"corpus.options.{name}={value}" for name, value in small.items()]
    quick = (
        "training.seeds=1",
        "training.linear=null",
        "temporal.width=16",
        "run.workers=0",
        "run.device=cpu",
    )
    corpus = (f"recipe={recipe}", "corpus=demo_afew_va", f"stream@streams.{stream}")
    command("params", "--write", *corpus, *options, *quick, *changes)
    params = read()
    assert [phase.name for phase in params.training.phases] == ["pretrain", "fit"]
    phase_one(params)
    for stage in ("train", "evaluate", "report"):
        command(stage)
    written = {path.parent.name: json.loads(path.read_text())["frames"] for path in Path("data/corpus").glob("*/*.json")}
    handed_in = pl.read_csv("reports/submission.csv", infer_schema=False)
    tested = pl.read_parquet("data/folds.parquet").filter(pl.col("role") == "test")["id"].str.split("/").list.last().to_list()
    held_out = sorted((clip, frame) for clip in tested for frame in written[clip])
    assert held_out and sorted(handed_in.select("clip_id", "frame").rows()) == held_out
    assert len(written) == 10 and handed_in["valence"].cast(pl.Float64).is_between(-10, 10).all()
    history = pl.read_csv("reports/plots/history.csv")
    assert set(history["phase"]) == {"pretrain", "fit"}
    assert "contrastive_accuracy" in json.loads(Path("reports/metrics.json").read_text())["fused"]


def test_iemocap_with_its_film(workspace):
    """The film of a dialogue is cut to the turn, its picture to the speaker's half, its sound to the speaker's channel."""
    _, params = workspace(
        "iemocap", "corpus.options.audio=dialogue", "+corpus.options.video=true", "+stream@streams.video=clip_tiny"
    )
    for stage in ("manifest", "frames", "audio"):
        command(stage)
    for store, rate in (("frames", 2), ("audio", 1)):
        media = Media(f"data/{store}.h5")
        assert len(media.ids) == 20 and all(media[clip].status == Status.OK for clip in media.ids)
        assert {len(media[clip].items) for clip in media.ids} == {rate}
        assert all(media[clip].times[-1, 1] == pytest.approx(0.5, abs=0.07) for clip in media.ids)


def test_a_task_is_learned_and_scored_where_its_label_is(workspace):
    """Emotion alone: turns with valence and no emotion are read as dialogue, and no figure counts them."""
    _, params = workspace("iemocap", *QUICK, "context=attention", "task=emotion", "task.dimensions=[]", "~stream@streams.text")
    phase_one(params)
    for stage in ("train", "evaluate", "report"):
        command(stage)
    predicted = pl.read_parquet("reports/predictions.parquet").filter(pl.col("variant") == "fused")
    scored = predicted.filter(pl.col("truth").is_not_null())
    assert predicted["truth"].null_count() * 3 == scored.height  # one turn of four
    right = (scored["truth"] == scored["predicted"]).sum() / scored.height
    figures = json.loads(Path("reports/metrics.json").read_text())["fused"]
    assert figures["accuracy"]["mean"] == pytest.approx(right, abs=1e-6)
    speakers = pl.read_parquet("reports/per_speaker.parquet").filter(pl.col("variant") == "fused")
    assert speakers["clips"].sum() == scored.height
    trained = json.loads(next(Path("models/runs").rglob("fused*/**/config.json")).read_text())
    assert trained["clips"] == {"train": 9, "val": 3}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone of what a user has, and `dvc` in it."""
    folder, cache = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("cache")
    for name in ("conf", "pipeline", "dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore", ".gitignore", "features/README.md"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    environment = os.environ | {
        "AFFECTORY_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, env=environment, text=True, stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git", "init", "-q")
    run("git", "add", ".")
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    return folder, run


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("recipe", "more", "stages"),
    [
        ("afew_va", (), [*BEFORE, "frames", "adapt@video", "extract@video", "index"]),
        (
            "emo_db",
            ("stream@streams.audio=logmel",),
            ["corpus", "link", "manifest", "audio", "adapt@audio", "extract@audio", "index"],
        ),
    ],
)
def test_dvc_exp_run(recipe, more, stages, checkout, tmp_path):
    """As the documentation says: frames without sound, sound without frames; DVC runs what the recipe needs."""
    folder, run = checkout
    expected = REPLICAS[recipe](tmp_path / recipe)
    sets = [word for value in overrides(recipe, tmp_path / recipe, more) for word in ("-S", value)]
    said = run(sys.executable, "-m", "dvc", "exp", "run", "index", *sets)
    assert [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")] == stages
    assert read(folder / "params.yaml").recipe == recipe
    with h5py.File(folder / "data/index.h5") as index:
        for stream in index["streams"].values():
            assert stream["store/status"].shape == (expected.clips,) and not stream["store/status"][:].any()

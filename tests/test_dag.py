"""The whole DAG on a tiny demo corpus, from a source archive without git, by DVC as a user runs it."""

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import polars as pl
import pytest
from ruamel.yaml import YAML

from pipeline.compose import compose, text

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "bundle=tiny",
    "corpus.options.sessions=4",
    "corpus.options.dialogues=4",
    "corpus.options.turns=5",
    "+corpus.options.shortest=1.0",
    "+corpus.options.longest=1.2",
    "training=quick",
    "training.epochs=2",
    "quarantine.max_rate=0.2",
    # One stream that loads a large library is enough here.
    "stream@streams.audio=logmel",
    "~stream@streams.text",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    for name in ("conf", "pipeline", ".dvc/config", ".dvcignore", "dvc.yaml", "features/README.md"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "params.yaml").write_text(text(compose(SMALL, ROOT / "conf")))
    return folder


@pytest.fixture(scope="module")
def dvc(workspace, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    binaries = Path(sys.executable).parent

    def run(*words, check=True):
        environment = os.environ | {
            "AFFECTORY_CACHE": str(cache),
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "DVC_NO_ANALYTICS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            cwd=workspace,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def ran(done) -> list[str]:
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]


def has_reflinks(file: Path) -> bool:
    """Whether a copy of the file takes no room."""
    words = ["cp", "--reflink=always", file, file.with_suffix(".copy")]
    return subprocess.run(words, capture_output=True).returncode == 0


def fuse(workspace, values):
    yaml = YAML()
    params = yaml.load((workspace / "params.yaml").read_text()) | {"fusion": values}
    with (workspace / "params.yaml").open("w") as file:
        yaml.dump(params, file)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_repro_and_changes(workspace, dvc):
    assert ran(dvc("repro", "corpus")) == ["corpus"]
    # Two files are damaged behind DVC's back, and it is told that this is the corpus.
    garbled, emptied = sorted((workspace / "data/corpus/media").glob("*.mp4"))[7:9]
    for file, content in ((garbled, b"this is no film\n" * 99), (emptied, b"")):
        file.unlink()  # the other name of a file of DVC's cache
        file.write_bytes(content)
    dvc("commit", "-f", "corpus")

    first = dvc("repro")
    assert {"manifest", "extract@audio", "train", "report"} <= set(ran(first)) and "corpus" not in ran(first)
    assert json.loads((workspace / "reports/metrics.json").read_text())["fused"]["uar"]["mean"] >= 0
    page = (workspace / "reports/index.html").read_text()
    assert "Random weights" in page
    lost = {row["media"]: row for row in pl.read_parquet(workspace / "data/quarantine.parquet").to_dicts()}
    for path, reason in ((garbled, "unreadable"), (emptied, "empty")):
        row = lost[f"media/{path.name}"]
        assert row["reason"] == reason
        shown = re.search(rf"<tr>[^/]*>{reason}<(?:(?!</tr>).)*{re.escape(row['id'])}(?:(?!</tr>).)*</tr>", page, re.DOTALL)
        assert shown and html.escape(row["detail"]).split("(")[0] in shown.group(), row
    manifest = pl.read_parquet(workspace / "data/manifest.parquet")
    turns = manifest.filter(pl.col("id").is_in([row["id"] for row in lost.values()]))
    assert not turns["target"].any() and turns["video"].is_null().all() and turns["emotion"].is_null().all()
    held = manifest.filter(pl.col("split") == "test")
    assert held.height and held["emotion"].is_null().all() and held["valence"].is_null().all()
    with h5py.File(workspace / "data/index.h5") as index:
        assert index["streams/audio/store/values"].shape[1] == index["streams/audio/mean"].shape[-1]

    again = dvc("repro")
    assert ran(again) == []
    assert "up to date" in dvc("status").stdout

    # DVC's cache shares files with the workspace; a stage by hand puts others in their place and writes into none.
    frames = workspace / "data/frames.h5"
    assert frames.stat().st_nlink > 1 or has_reflinks(frames)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for stage in ("index", "evaluate", "report"):
        subprocess.run([sys.executable, "-m", "pipeline", stage], cwd=workspace, env=environment, check=True, capture_output=True)
    kept = [path for path in (workspace / ".dvc/cache/files/md5").glob("??/*") if path.suffix != ".dir"]
    assert len(kept) > 20
    assert not [path for path in kept if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name]

    # A fusion that is none: one line, and what was made stays.
    fuse(workspace, {"name": "magic", "options": {}})
    refused = dvc("repro", check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode and ran(refused) == ["train"] and "Traceback" not in said
    (line,) = (line for line in said.splitlines() if line.startswith("error:"))
    assert "magic" in line and "gated" in line
    assert (workspace / "reports/index.html").read_text() == page

    # Another fusion: nothing before `train` runs.
    fuse(workspace, {"name": "adaptive", "options": {"modality_dropout": 0.2}})
    assert ran(dvc("repro")) == ["train", "evaluate", "report"]

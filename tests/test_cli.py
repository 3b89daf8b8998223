"""The command line: help is quick to read, mistakes are one line with an exit code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )


def test_help_names_every_stage_of_the_dag():
    from ruamel.yaml import YAML

    shown = run("--help").stdout
    for name, stage in YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].items():
        commands = (stage.get("do") or stage)["cmd"]
        for command in [commands] if isinstance(commands, str) else commands:
            assert command.split()[3] in shown, name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("extract", "smell"), "Unknown stream 'smell'"),
        (("inspect", "none.h5"), "none.h5 is not there"),
        (("predict", "none.mp4"), "models/runs holds no trained model"),
        (("index", "--params", "none.yaml"), "none.yaml is not there"),
    ],
)
def test_a_mistake_is_one_line(words, said, tmp_path):
    # In a folder of its own: the checkout may hold trained models.
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1


def test_startup_imports_no_framework():
    heavy = ("torch", "transformers", "av", "numpy", "polars", "h5py", "lmdb", "hydra")
    code = f"import sys, pipeline.cli; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_group_of_commands_has_help():
    for words, said in (((), "Stages"), (("corpus",), "fetch"), (("cache",), "gc")):
        done = run(*words, "--help")
        assert done.returncode == 0 and said in done.stdout


def test_cache_commands():
    assert run("cache", "verify").stdout.startswith("0 damaged")
    assert "total" in run("cache", "stats").stdout
    assert "nothing to remove" in run("cache", "gc").stdout


def test_params_prints_a_composition():
    assert "name: adaptive" in run("params", "fusion=adaptive").stdout
    assert "fusion" in run("params", "fusion=magic").stderr

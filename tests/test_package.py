"""The distribution: what `pip install .` installs, and what its metadata say."""

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.project import DVC, FILES, OUTPUTS
from pipeline.version import VERSION

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: building leaves folders beside the source."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("affectory", "conf", "pipeline"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    alone = ("pyproject.toml", "setup.py", "README.md", "LICENSE", *(path.name for path in ROOT.glob("requirements*.txt")))
    for name in (*alone, *FILES, DVC, *(f"{output}/README.md" for output in OUTPUTS)):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "out").glob("affectory-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel):
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in ("affectory", "pipeline")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    template = {
        f"pipeline/template/{path.relative_to(ROOT).as_posix()}"
        for path in (
            *(ROOT / "conf").rglob("*.yaml"),
            *(ROOT / name for name in (*FILES, DVC)),
            *(ROOT / name / "README.md" for name in OUTPUTS),
        )
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == ours | template


def test_metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    metadata = message_from_bytes(wheel.read(name))
    assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == ("affectory", VERSION, "MIT")
    needed = metadata.get_all("Requires-Dist")
    direct = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(direct) == {line for line in needed if "extra ==" not in line}
    assert set(metadata.get_all("Provides-Extra")) == {"docs", "export", "ray", "test", "track"}


def test_the_version_stands_in_the_citation_and_the_changelog_too():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION and citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= set(citation)
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_installed_command_runs_outside_the_checkout(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    scripts = ConfigParser()
    scripts.read_string(next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt")))
    module, function = scripts["console_scripts"]["affectory"].split(":")
    code = f"import sys; sys.path.insert(0, 'site'); from {module} import {function}; {function}()"
    done = subprocess.run([sys.executable, "-c", code, "cache", "stats"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "total" in done.stdout, done.stderr


def test_a_new_project_of_an_installation_has_a_dag(wheel, tmp_path):
    """From the wheel alone: its stages are there, its code is the installed one, nothing of another folder is touched."""
    wheel.extractall(tmp_path / "site")
    run = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); from pipeline.__main__ import run; run()"]
    for command in (["new", "study"], ["new", "study"]):
        done = subprocess.run([*run, str(tmp_path / "site"), *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "study holds something already" in done.stderr and "Traceback" not in done.stderr
    study = tmp_path / "study"
    assert (study / "pipeline").resolve() == tmp_path / "site/pipeline"
    assert (study / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert (study / DVC).read_bytes() == (ROOT / DVC).read_bytes()
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--all"], cwd=study, capture_output=True, text=True, check=True
    ).stdout
    assert {"manifest", "extract@audio", "train", "report"} <= {line.split()[0] for line in listed.splitlines() if line.strip()}
    done = subprocess.run([sys.executable, "-m", "pipeline", "params", "--check"], cwd=study, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version_is_told():
    done = subprocess.run([sys.executable, "-m", "pipeline", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == f"affectory {VERSION}"

"""The distribution: what `pip install .` installs, and what its metadata say."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: building leaves folders beside the source."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", *(path.name for path in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "out").glob("affectory-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel):
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pipeline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == ours


def test_metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    metadata = message_from_bytes(wheel.read(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == ("affectory", project["version"], "MIT")
    needed = metadata.get_all("Requires-Dist")
    direct = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(direct) == {line for line in needed if "extra ==" not in line}
    assert set(metadata.get_all("Provides-Extra")) == {"ray", "export", "track", "test"}


def test_the_version_stands_in_the_citation_and_the_changelog_too():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= set(citation)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_installed_command_runs_outside_the_checkout(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    scripts = ConfigParser()
    scripts.read_string(next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt")))
    module, function = scripts["console_scripts"]["affectory"].split(":")
    code = f"import sys; sys.path.insert(0, 'site'); from {module} import {function}; {function}()"
    done = subprocess.run([sys.executable, "-c", code, "cache", "stats"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "total" in done.stdout, done.stderr

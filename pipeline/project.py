"""The folder of a project: the DAG (`dvc.yaml`), `conf/`, `params.yaml`, and where to get a new one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .errors import UserError

#: What a project consists of before its first run.
FILES = ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore")
FOLDERS = ("conf",)
#: The code, which stages depend on, and what DVC is told.
CODE, DVC = "pipeline", ".dvc/config"
#: Folders that hold what stages write, each with a page that says what.
OUTPUTS = ("data", "features", "models", "reports")


def find_template() -> Path:
    """The project that came with the code: in a wheel inside the package, in a checkout around it.

    Raises:
        UserError: there is none; the installation is not whole.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "template", here.parent):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            return folder
    raise UserError(f"the files of a new project are not in {here}; install affectory again.")


def find_project() -> Path:
    """This folder where it is a project, else the template."""
    return Path() if Path("params.yaml").is_file() and Path("conf").is_dir() else find_template()


def make_project(folder: str | Path) -> Path:
    """A new project: the files of the template, a git repository and DVC in it, and a link to the code, by which DVC sees
    that another version is installed.

    Raises:
        UserError: the folder holds something.
    """
    folder, template = Path(folder), find_template()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something already; give the name of a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(template / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(template / name, folder / name)
    for name in OUTPUTS:
        (folder / name).mkdir()
        shutil.copyfile(template / name / "README.md", folder / name / "README.md")
    (folder / CODE).symlink_to(Path(__file__).resolve().parent)
    _begin(folder, template)
    return folder


def _begin(folder: Path, template: Path) -> None:
    """
    Raises:
        UserError: git is not installed.
    """
    from dvc.repo import Repo

    if shutil.which("git") is None:
        raise UserError("git is not installed; DVC keeps runs and experiments in it.")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    Repo.init(str(folder)).close()
    shutil.copyfile(template / DVC, folder / DVC)

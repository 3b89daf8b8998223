"""Beside pyproject.toml: the wheel also holds the files of a new project, which in a checkout lie around the code."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
#: As in pipeline/project.py, which cannot be imported where its libraries are not installed yet.
TEMPLATE = ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", "conf")
TEMPLATE += tuple(f"{name}/README.md" for name in ("data", "features", "models", "reports"))


class WithTemplate(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in TEMPLATE:
            target = Path(self.build_lib, "pipeline/template", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(ROOT / name, target)


setup(cmdclass={"build_py": WithTemplate})

"""`new`: the folder of a project, where the code is installed and not a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import TOOLS, out

app = typer.Typer()


@app.command(rich_help_panel=TOOLS)
def new(folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")]) -> None:
    """A new project: stages, conf/ and params.yaml in a git repository of its own. A checkout is one already."""
    from pipeline.project import make_project

    make_project(folder)
    out.print(
        f"{folder} is a project. Next: cd {folder} && git add -A && git commit -m 'A new project' && dvc repro", soft_wrap=True
    )

"""`study`: one command per question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .begin import begin
from .options import TOOLS, ParamsFile

app = typer.Typer()


@app.command("study", rich_help_panel=TOOLS)
def ask(
    names: Annotated[list[str], typer.Argument(help="Of conf/study/, e.g. fusion; or KEY=V1,V2 … for every combination.")],
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be run, and run nothing.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Compare settings on the features there are: a table, and reports/study.html. Nothing is trained twice."""
    from pipeline.study.ask import run

    for text in run(names, begin(params), only_plan=plan):
        typer.echo(text)  # rich would wrap the table

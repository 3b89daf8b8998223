"""`study`: one command per question. `compare`: runs that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.runs.folders import FUSED

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


@app.command(rich_help_panel=TOOLS)
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Commits, experiments, `last` or RUN:VARIANT; the first is what the rest, or the workspace, is compared with."
        ),
    ] = None,
    variant: Annotated[str, typer.Option(help="Which model: fused, ensemble, student, linear, or one stream's.")] = FUSED,
) -> None:
    """Runs on the same held-out clips: what differs in parameters and in figures, paired. Without names: HEAD, workspace."""
    from pipeline.study.compare import compare_runs, format_comparison
    from pipeline.study.kept import WORKSPACE, read_kept

    names = list(dict.fromkeys(runs or ["HEAD"]))
    found = [read_kept(name) for name in (names if len(names) > 1 else [*names, WORKSPACE])]
    typer.echo(format_comparison(found, compare_runs(found, variant), variant))

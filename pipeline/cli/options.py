"""What the commands share: where they print, how parameters are named, the panels of `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline import params as parameters

out = Console(highlight=False, emoji=False)
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters of the run.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="e.g. recipe=ravdess corpus.root=/data/ravdess")]
SetParams = Annotated[list[str] | None, typer.Option("-S", "--set-param", help="The same, as `dvc exp run` takes it.")]
STAGES, TOOLS = "Stages", "Tools"


def chosen(overrides: list[str], path: Path) -> parameters.Params:
    """`params.yaml` as it is; with overrides, what `conf/` composes with them. A word alone is a recipe.

    Raises:
        ParamsError: see `params.read` and `compose`.
    """
    if not overrides:
        return parameters.read(path)
    from pipeline.compose import compose

    words = [word if "=" in word or word.startswith("~") else f"recipe={word}" for word in overrides]
    return parameters.parse(compose(words), "conf")

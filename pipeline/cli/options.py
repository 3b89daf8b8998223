"""What the commands share: where they print, how parameters are named, the panels of `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console(highlight=False)
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters of the run.")]
STAGES, TOOLS = "Stages", "Tools"

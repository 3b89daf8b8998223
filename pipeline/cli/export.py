"""`export`: the trained model as a folder for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import params as parameters
from pipeline.runs.folders import FUSED

from .options import TOOLS, ParamsFile, out

app = typer.Typer()


@app.command(rich_help_panel=TOOLS)
def export(
    folder: Annotated[Path, typer.Argument(help="Written whole or not at all; an earlier export there is replaced.")],
    variant: Annotated[str, typer.Option(help="Which model: fused, ensemble, student, linear, or one stream's.")] = FUSED,
    fold: Annotated[int, typer.Option(help="Of which fold.")] = 0,
    licence: Annotated[str, typer.Option(help="Of what is exported, as the hub writes it; for the card.")] = "other",
    onnx: Annotated[bool, typer.Option("--onnx", help="The networks as ONNX too, compared with themselves.")] = False,
    encoders: Annotated[bool, typer.Option("--encoders", help="With --onnx: the encoders too, where that can be.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="With --onnx: in eight bits too, and what that costs.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """A Hugging Face folder of the trained model, with a card; `from_pretrained` reads it without this checkout."""
    from pipeline.export.folder import export as write

    values = parameters.read(params)
    for line in write(values, folder, variant=variant, fold=fold, licence=licence, onnx=onnx, encoders=encoders, int8=int8):
        out.print(f"Left out: {line}", style="yellow", soft_wrap=True)
    out.print(f"{folder}: read {folder / 'README.md'} before you give it to anyone", soft_wrap=True)

"""`app`: a page on this machine that asks the trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import params as parameters
from pipeline.runs.folders import FUSED

from .options import TOOLS, ParamsFile, out

app = typer.Typer()


@app.command("app", rich_help_panel=TOOLS)
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = one that is free.")] = 8750,
    variant: Annotated[str, typer.Option(help="Which model: fused, ensemble, student, linear, or one stream's.")] = FUSED,
    megabytes: Annotated[int, typer.Option(min=1, help="Largest file.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="Longest film.")] = 300,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """A page on this machine: drop a film, or use camera and microphone. It listens on 127.0.0.1 alone and keeps nothing."""
    values = parameters.read(params)
    from pipeline.app.judge import Judge
    from pipeline.app.page import Page
    from pipeline.app.server import HOST, make_server
    from pipeline.serving.predictor import Predictor

    predictor = Predictor.load(values, variant=variant)
    spec = predictor.runs[0].model.spec
    page = Page(values.recipe, spec.classes, spec.dimensions, predictor.random)
    with make_server(Judge(predictor, seconds), page, port, megabytes << 20) as server:
        out.print(f"Open http://{HOST}:{server.server_address[1]}/ (Ctrl-C ends it)", soft_wrap=True)
        server.serve_forever()

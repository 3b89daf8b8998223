"""The stages of the DAG, a command each. Parameters come first: a mistake in them is told before a library is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import WeightsError

from .begin import begin
from .checkout import keep_out_of_git
from .options import STAGES, ParamsFile

app = typer.Typer()


@app.command(rich_help_panel=STAGES)
def manifest(
    params: ParamsFile = Path("params.yaml"),
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first damaged clip or line.")] = False,
) -> None:
    """Corpus folder → data/manifest.parquet, with integrity, splits and leakage checks."""
    values = begin(params)
    from pipeline.data.build import build_manifest

    from .preflight import check_weights

    check_weights(values)  # before hours of decoding, not after them
    build_manifest(values, strict=strict)


@app.command(rich_help_panel=STAGES)
def frames(params: ParamsFile = Path("params.yaml")) -> None:
    """Video → sampled frames in data/frames.h5."""
    values = begin(params)
    from pipeline.data.media import extract_frames

    extract_frames(values)


@app.command(rich_help_panel=STAGES)
def faces(params: ParamsFile = Path("params.yaml")) -> None:
    """Frames → one face per clip as square crops in data/faces.h5."""
    values = begin(params)
    from pipeline.data.faces.stage import extract_faces

    extract_faces(values)


@app.command(rich_help_panel=STAGES)
def audio(params: ParamsFile = Path("params.yaml")) -> None:
    """Sound → 16 kHz mono FLAC in data/audio.h5."""
    values = begin(params)
    from pipeline.data.media import extract_audio

    extract_audio(values)


@app.command(rich_help_panel=STAGES)
def transcribe(params: ParamsFile = Path("params.yaml")) -> None:
    """Speech → text for clips that have none, in data/transcripts.parquet (when asr.weights is set)."""
    values = begin(params)
    from pipeline.features.transcribe import transcribe as run

    run(values)


@app.command(rich_help_panel=STAGES)
def adapt(stream: str, params: ParamsFile = Path("params.yaml")) -> None:
    """Teach one encoder on the training clips → models/adapters/<stream> (when streams.<stream>.adapt is set)."""
    values = begin(params)
    from pipeline.adaptation.stage import adapt as run

    run(values, stream)


@app.command(rich_help_panel=STAGES)
def extract(stream: str, params: ParamsFile = Path("params.yaml")) -> None:
    """Run one frozen encoder → features/<stream>.h5."""
    values = begin(params)
    from pipeline.features.extract import extract as run

    from .preflight import check_weights

    keep_out_of_git(values.stream(stream).source)
    try:
        run(values, stream)
    except WeightsError:
        check_weights(values)  # all that is missing, not one by one
        raise


@app.command(rich_help_panel=STAGES)
def index(params: ParamsFile = Path("params.yaml")) -> None:
    """Join manifest and stores by clip id → data/index.h5."""
    values = begin(params)
    from pipeline.features.index import build

    build(values)


@app.command(rich_help_panel=STAGES)
def train(params: ParamsFile = Path("params.yaml")) -> None:
    """Cached tokens → models/runs, several seeds."""
    values = begin(params)
    from pipeline.training.stage import train as run

    run(values)


@app.command(rich_help_panel=STAGES)
def evaluate(params: ParamsFile = Path("params.yaml")) -> None:
    """Held-out clips → predictions, metrics with intervals, plots."""
    values = begin(params)
    from pipeline.evaluation.evaluate import evaluate as run
    from pipeline.evaluation.sentences import tell_headlines

    run(values)
    for line in tell_headlines(Path("reports")):
        typer.echo(line)
    typer.echo("Stage report shows them in reports/index.html")


@app.command(rich_help_panel=STAGES)
def report(
    embed: Annotated[
        int, typer.Option(min=0, help="Put sound and picture of the N worst clips into the page of clips, to give it away.")
    ] = 0,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Everything → reports/index.html, one self-contained page, and reports/clips.html, every held-out clip with its player."""
    values = begin(params)
    from pipeline.evaluation.report import write_report
    from pipeline.evaluation.sentences import tell_headlines

    page = write_report(values, embed=embed)
    for line in tell_headlines(Path("reports")):
        typer.echo(line)
    typer.echo(f"Open {page}; every held-out clip: {page.with_name('clips.html')}")

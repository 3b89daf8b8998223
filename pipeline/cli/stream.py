"""`stream`: a conversation judged as it goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import params as parameters
from pipeline.runs.folders import FUSED

from .options import TOOLS, ParamsFile, out

app = typer.Typer()


@app.command(rich_help_panel=TOOLS)
def stream(
    source: Annotated[str, typer.Argument(help="A film or sound file; - reads a line of JSON per segment from standard input.")],
    hop: Annotated[
        float | None, typer.Option(help="Seconds of a segment; without it a film is cut where its sound pauses.")
    ] = None,
    pcm: Annotated[bool, typer.Option("--pcm", help="Standard input is 16-bit mono samples at decode.audio.rate.")] = False,
    window: Annotated[int, typer.Option(help="Earlier turns a language model's prompt may grow to; 0 = as trained.")] = 0,
    variant: Annotated[str, typer.Option(help="Which model: fused, ensemble, student, linear, or one stream's.")] = FUSED,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per segment.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Emotion of each segment of a conversation, as it comes in."""
    from pipeline.errors import UserError
    from pipeline.serving import segments
    from pipeline.serving.predictor import Predictor
    from pipeline.serving.session import Session

    if hop is not None and hop <= 0:
        raise UserError(f"--hop {hop:g}: give seconds above 0.")
    predictor = Predictor.load(parameters.read(params), variant=variant)
    session = Session(predictor, window=window)
    session.load()
    if pcm:
        pieces = segments.read_samples(sys.stdin.buffer, predictor.params.decode.audio.rate, hop or 2.0)
    elif source == "-":
        pieces = segments.read_lines(sys.stdin, predictor.params)
    else:
        pieces = segments.read_film(Path(source), predictor.params, hop)
    latencies, seconds = [], 0.0
    for piece in pieces:
        try:
            step = session.push(piece)
        except UserError as error:
            typer.echo(json.dumps({"start": piece.start, "error": str(error)}) if as_json else f"{piece.start:8.2f}  {error}")
            continue
        latencies.append(step.latency)
        seconds += step.end - step.start
        values = {name: round(value, 4) for name, value in step.dimensions.items()}
        if as_json:
            chances = {name: round(value, 6) for name, value in step.emotions.items()}
            line = {"start": round(step.start, 3), "end": round(step.end, 3), "emotion": step.emotion, "emotions": chances}
            typer.echo(json.dumps({**line, **values, "text": step.text, "latency": round(step.latency, 4)}, ensure_ascii=False))
        else:
            chance = f"{step.emotion} {step.emotions[step.emotion]:.0%}" if step.emotion else ""
            rest = "  ".join(f"{name} {value:+.2f}" for name, value in values.items())
            when, late = f"{step.start:8.2f}–{step.end:.2f} s", f"{step.latency * 1e3:.0f} ms"
            typer.echo(f"{when}  {chance:<16} {rest}  {late}  {step.text or ''}".rstrip())
    if not as_json:
        out.print(segments.summarise(latencies, seconds), style="dim", highlight=False)

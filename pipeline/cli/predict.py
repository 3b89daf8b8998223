"""`predict`: what a trained model says of raw files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline import params as parameters
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.runs.folders import FUSED

from .options import TOOLS, ParamsFile, out

if TYPE_CHECKING:
    from pipeline.serving.looks import Looks
    from pipeline.serving.medium import Medium

app = typer.Typer()
#: Exit code where some of many files could not be read.
SOME = 3


@app.command(rich_help_panel=TOOLS)
def predict(
    media: Annotated[list[str], typer.Argument(help="Files, folders with all below them, or patterns such as 'films/*.mp4'.")],
    table: Annotated[Path | None, typer.Option("--csv", help="Write here a row per file.")] = None,
    text: Annotated[str | None, typer.Option(help="What is said in the clip.")] = None,
    start: float | None = None,
    end: float | None = None,
    speaker: Annotated[str | None, typer.Option(help="Who says it.")] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="An earlier turn, `NAME: words`; again for each, oldest first.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Which model: fused, ensemble, student, linear, or one stream's.")] = FUSED,
    attention: Annotated[Path | None, typer.Option(help="Write here (.npz) what the model's attention looks at.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write the course over time: a .csv; of several files, a folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it here: a .png or .svg; of several files, a folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; of several files, a line each.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Emotion probabilities and valence/arousal of raw media files. Of several files, those done are not done again."""
    from pipeline.serving.medium import find_media

    found = find_media(media)
    values = parameters.read(params)
    if table is None and len(media) == 1 and Path(media[0]) == found[0].path:
        given = {"text": text, "start": start, "end": end, "speaker": speaker, "attention": attention}
        _one(values, found[0].path, variant, given, context or [], trace, plot, as_json=json)
        return
    of_one = {"text": text, "start": start, "end": end, "speaker": speaker, "context": context, "attention": attention}
    if given_name := next((name for name, value in of_one.items() if value is not None), None):
        raise UserError(f"--{given_name} is of one file, without --csv; there are {len(found)}.")
    if failed := _many(values, found, variant, table, trace, plot, as_json=json):
        Console(stderr=True).print(f"{failed} of {len(found)} files have no prediction; the reason stands in place of it.")
        raise typer.Exit(SOME)


def _one(
    params: Params,
    path: Path,
    variant: str,
    given: dict[str, Any],
    context: list[str],
    trace: Path | None,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    if plot is not None:
        from pipeline.evaluation.drawing import check_drawing, write_drawing

        check_drawing(plot)
    looks = _warm(params)
    from pipeline.serving.files import keeping
    from pipeline.serving.predictor import Predictor
    from pipeline.serving.show import format_json, format_text
    from pipeline.serving.spoken import turn
    from pipeline.serving.trace import check_trace, write_trace

    with keeping(Predictor.load(params, variant=variant, looks=looks)) as predictor:
        prediction = predictor.predict(path, context=[turn(said) for said in context], **given)
    if trace is not None:
        write_trace(trace, prediction)
    if plot is not None:
        check_trace(prediction)
        write_drawing(plot, path.name, prediction.times.mean(1).tolist(), prediction.trace, prediction.spread)
    if as_json:
        typer.echo(format_json(prediction))  # rich would read brackets as markup and wrap lines
    else:
        out.print(format_text(prediction))


def _many(
    params: Params,
    media: list[Medium],
    variant: str,
    table: Path | None,
    trace: Path | None,
    plot: Path | None,
    *,
    as_json: bool,
) -> int:
    """How many have no prediction."""
    looks = _warm(params)
    from pipeline.progress import track
    from pipeline.serving.answers import format_json, format_line, name_file, write_table
    from pipeline.serving.files import keeping, predict_files
    from pipeline.serving.predictor import Predictor
    from pipeline.serving.trace import write_trace

    if table is not None and (table.is_dir() or not table.absolute().parent.is_dir()):
        raise UserError(f"--csv {table}: {'it is a folder' if table.is_dir() else f'{table.absolute().parent} is no folder'}.")
    for name, place in (("trace", trace), ("plot", plot)):
        if place is not None and (place.suffix or place.is_file()):
            raise UserError(f"--{name} {place}: of several files it is a folder.")
    answers = []
    with keeping(Predictor.load(params, variant=variant, looks=looks)) as predictor, track(len(media), "predict") as advance:
        for answer in predict_files(predictor, media):
            answers.append(answer)
            advance(1)
            if as_json or table is None:
                typer.echo(format_json(answer) if as_json else format_line(answer))
            if (found := answer.prediction) is None or not found.trace:
                continue
            if trace is not None:
                trace.mkdir(parents=True, exist_ok=True)
                write_trace(trace / name_file(answer, ".csv"), found)
            if plot is not None:
                from pipeline.evaluation.drawing import write_drawing

                plot.mkdir(parents=True, exist_ok=True)
                times = found.times.mean(1).tolist()
                write_drawing(plot / name_file(answer, ".png"), answer.medium.name, times, found.trace, found.spread)
        spec = predictor.runs[0].model.spec
    if table is not None:
        write_table(table, answers, spec.classes, spec.dimensions)
    return sum(answer.prediction is None for answer in answers)


def _warm(params: Params) -> Looks:
    """What looks at files, which starts while this process imports a framework."""
    from pipeline.serving.looks import Looks

    looks = Looks()
    looks.warm(params)
    return looks

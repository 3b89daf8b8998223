"""The one entry point: `python -m pipeline <stage>` and the tools beside the stages.

Every module is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from . import params as parameters
from .errors import UserError
from .storage.atomic import refusal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Two-phase feature-cache pipeline for multimodal emotion recognition.",
)
corpus_app = typer.Typer(no_args_is_help=True, help="Generate, fetch, check corpora.")
cache_app = typer.Typer(no_args_is_help=True, help="Look after the clip cache.")
app.add_typer(corpus_app, name="corpus", rich_help_panel="Stages")
app.add_typer(cache_app, name="cache", rich_help_panel="Tools")

out = Console(highlight=False)
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters of the run.")]
STAGES, TOOLS = "Stages", "Tools"


@corpus_app.command("prepare")
def corpus_prepare(params: ParamsFile = Path("params.yaml"), folder: Path = Path("data/corpus")) -> None:
    """Generate the demo corpus, or check that a real one is where corpus.root says."""
    from .data.prepare import prepare

    prepare(parameters.read(params), folder)


@corpus_app.command("check")
def corpus_check(
    name: Annotated[str | None, typer.Argument(help="A recipe; none = params.yaml.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder of the corpus.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="One damaged clip or line is too many.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Examine a corpus folder: damage, labels, lengths, leaks. Writes nothing."""
    import json

    from .compose import compose
    from .data.check import check

    values = compose([f"recipe={name}"]) if name else parameters.read(params).model_dump()
    if root:
        values["corpus"]["root"] = root
    found = check(parameters.parse(values), strict=strict)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    if not found["ok"]:
        raise typer.Exit(3)


@corpus_app.command("fetch")
def corpus_fetch(
    name: str,
    folder: Annotated[Path | None, typer.Argument(help="Default: corpora/NAME.")] = None,
    accept_licence: Annotated[bool, typer.Option("--accept-licence")] = False,
) -> None:
    """Download a corpus that is openly distributed; of the others, say whom to ask."""
    from .data.fetch import fetch

    for line in fetch(name, folder or Path("corpora") / name, accept_licence).messages:
        typer.echo(line)


@corpus_app.command("table")
def corpus_table() -> None:
    """Print the page of all corpora (docs/corpora.md)."""
    from .data.corpora.page import page

    typer.echo(page(), nl=False)


@corpus_app.command("labels")
def corpus_labels(table: Path, column: str, out_folder: Annotated[Path, typer.Option("--out")] = Path(".")) -> None:
    """Label distribution of any table: coverage and shares, as text, CSV and bar chart."""
    from .data.distribution import distribution

    found = distribution(table, column)
    for label, count, rows, share in found.lines():
        typer.echo(f"{label:20} {count:8d}  {rows:6.2f} % of rows  {share:6.2f} % of labels")
    found.write_csv(out_folder / f"{column}.csv")
    found.write_chart(out_folder / f"{column}.png")


@app.command(rich_help_panel=STAGES)
def manifest(
    params: ParamsFile = Path("params.yaml"),
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first damaged clip or line.")] = False,
) -> None:
    """Corpus folder → data/manifest.parquet, with integrity, splits and leakage checks."""
    from .data.build import build

    build(parameters.read(params), strict=strict)


@app.command(rich_help_panel=STAGES)
def frames(params: ParamsFile = Path("params.yaml")) -> None:
    """Video → sampled frames in data/frames.h5."""
    from .data.media import extract_frames

    extract_frames(parameters.read(params))


@app.command(rich_help_panel=STAGES)
def faces(params: ParamsFile = Path("params.yaml")) -> None:
    """Frames → one face per clip as square crops in data/faces.h5."""
    from .data.faces.stage import extract_faces

    extract_faces(parameters.read(params))


@app.command(rich_help_panel=STAGES)
def audio(params: ParamsFile = Path("params.yaml")) -> None:
    """Sound → 16 kHz mono FLAC in data/audio.h5."""
    from .data.media import extract_audio

    extract_audio(parameters.read(params))


@app.command(rich_help_panel=STAGES)
def transcribe(params: ParamsFile = Path("params.yaml")) -> None:
    """Speech → text for clips that have none, in data/transcripts.parquet (when asr.weights is set)."""
    from .features.transcribe import transcribe as run

    run(parameters.read(params))


@app.command(rich_help_panel=STAGES)
def extract(stream: str, params: ParamsFile = Path("params.yaml")) -> None:
    """Run one frozen encoder → features/<stream>.h5."""
    from .features.extract import extract as run

    run(parameters.read(params), stream)


@app.command(rich_help_panel=STAGES)
def index(params: ParamsFile = Path("params.yaml")) -> None:
    """Join manifest and stores by clip id → data/index.h5."""
    from .features.index import build

    build(parameters.read(params))


@app.command(rich_help_panel=STAGES)
def train(params: ParamsFile = Path("params.yaml")) -> None:
    """Cached tokens → models/runs, several seeds."""
    from .training.stage import train as run

    run(parameters.read(params))


@app.command(rich_help_panel=STAGES)
def evaluate(params: ParamsFile = Path("params.yaml")) -> None:
    """Held-out clips → predictions, metrics with intervals, plots."""
    from .evaluation.evaluate import evaluate as run

    run(parameters.read(params))


@app.command(rich_help_panel=STAGES)
def report(params: ParamsFile = Path("params.yaml")) -> None:
    """Everything → reports/index.html, one self-contained page."""
    from .evaluation.report import render

    out.print(f"Open {render(parameters.read(params))}")


@app.command(rich_help_panel=TOOLS)
def predict(
    clip: Path,
    text: Annotated[str | None, typer.Option(help="What is said in the clip.")] = None,
    start: float | None = None,
    end: float | None = None,
    speaker: Annotated[str | None, typer.Option(help="Who says it.")] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="An earlier turn, `NAME: words`; again for each, oldest first.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Emotion probabilities and valence/arousal of a raw media file."""
    from .serving.predictor import Predictor, format_json, format_text
    from .serving.source import turn

    predictor = Predictor.load(parameters.read(params))
    prediction = predictor.predict(
        clip, text=text, start=start, end=end, speaker=speaker, context=[turn(said) for said in context or ()]
    )
    if json:
        typer.echo(format_json(prediction))  # rich would read brackets as markup and wrap lines
    else:
        out.print(format_text(prediction))


@app.command(rich_help_panel=TOOLS)
def inspect(store: Path, export: Annotated[Path | None, typer.Option(help="Write a media store's files here.")] = None) -> None:
    """Print what an HDF5 store or index holds."""
    from .storage.inspect import describe

    out.print(describe(store))
    if export:
        from .storage.media_store import Media

        out.print(f"{Media(store).export(export)} files in {export}")


@app.command(rich_help_panel=TOOLS)
def streams() -> None:
    """List every ready-made encoder: modality, width, rate, licence, weights."""
    from .features.encoders.registry import markdown_table

    out.print(markdown_table(), soft_wrap=True)


@app.command("params", rich_help_panel=TOOLS)
def compose_params(
    overrides: Annotated[list[str] | None, typer.Argument(help="e.g. recipe=ravdess")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write params.yaml.")] = False,
) -> None:
    """Compose conf/ and print, or write, the parameters."""
    from .compose import compose, text
    from .storage.atomic import write_text

    values = compose(overrides or ())
    parameters.parse(values, "conf")
    if write:
        write_text("params.yaml", text(values))
    else:
        out.print(text(values), markup=False)


@cache_app.command()
def stats() -> None:
    """Entries and bytes per identity."""
    from .storage.housekeeping import stats as table

    out.print(table(), soft_wrap=True)


@cache_app.command()
def verify(repair: Annotated[bool, typer.Option(help="Drop what is damaged, to be computed again.")] = False) -> None:
    """Check every entry against its checksum."""
    from .storage.housekeeping import verify as check

    damaged = check(repair=repair)
    out.print(f"{damaged} damaged entries{' dropped' if repair and damaged else ''}")
    if damaged and not repair:
        raise typer.Exit(1)


@cache_app.command()
def gc(
    days: Annotated[float, typer.Option(help="Remove identities not used for so many days.")] = 30.0, dry_run: bool = False
) -> None:
    """Free the space of identities no longer used."""
    from .storage.housekeeping import collect

    for line in collect(days=days, dry_run=dry_run):
        out.print(line)


def main() -> None:
    """Run a command; a user's mistake is one line and an exit code, never a traceback."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        datefmt="%H:%M:%S",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, markup=False)],
    )
    for noisy in ("httpx", "httpx2", "httpcore", "huggingface_hub", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        app()
    except UserError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {_escape(str(error))}")
        sys.exit(error.exit_code)
    except OSError as error:
        if not (reason := refusal(error)):
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]error:[/] {_escape(str(error.filename or 'the disk'))}: {reason}. What was computed is kept; make "
            "room or take another folder, then run again."
        )
        sys.exit(2)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)

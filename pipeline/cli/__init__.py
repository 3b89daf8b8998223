"""The one entry point: `python -m pipeline <stage>`, or `affectory <stage>`, and the tools beside the stages.

Every module is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from pipeline.errors import UserError
from pipeline.storage.atomic import explain_refusal
from pipeline.version import VERSION

from . import app as page
from . import cache, corpora, export, features, instruct, predict, project, stages, start, stream, study, tools
from .options import STAGES, TOOLS

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(corpora.app, name="corpus", rich_help_panel=STAGES)
app.add_typer(stages.app)
app.add_typer(study.app)
app.add_typer(start.app)
app.add_typer(predict.app)
app.add_typer(tools.app)
app.add_typer(project.app)
app.add_typer(stream.app)
app.add_typer(page.app)
app.add_typer(export.app)
app.add_typer(cache.app, name="cache", rich_help_panel=TOOLS)
app.add_typer(features.app, name="features", rich_help_panel=TOOLS)
app.add_typer(instruct.app, name="instruct", rich_help_panel=TOOLS)
app.add_typer(instruct.words)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"affectory {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print it and exit.")] = False,
) -> None:
    """Two-phase feature-cache pipeline for multimodal emotion recognition."""


def main() -> None:
    """Run a command; a user's mistake is one line and an exit code, never a traceback."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        datefmt="%H:%M:%S",
        handlers=[RichHandler(console=Console(stderr=True, emoji=False), show_path=False, markup=False)],
    )
    for noisy in ("httpx", "httpx2", "httpcore", "huggingface_hub", "transformers", "bitsandbytes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        app()
    except UserError as error:
        Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except OSError as error:
        if not (reason := explain_refusal(error)):
            raise
        Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(
            f"[bold red]error:[/] {escape(str(error.filename or 'the disk'))}: {reason}. What was computed is kept; make "
            "room or take another folder, then run again."
        )
        sys.exit(2)

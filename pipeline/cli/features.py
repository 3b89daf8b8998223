"""`features`: what a composed model makes of whole films."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import params as parameters

from .options import TOOLS, ParamsFile, out

app = typer.Typer(no_args_is_help=True, help="Features of whole films, from raw files by one command.")
CONF = Path("conf/features")


@app.callback()
def _group() -> None:
    """A group, though it has one command."""


@app.command("emotion_llama", rich_help_panel=TOOLS)
def emotion_llama(
    films: Annotated[list[Path] | None, typer.Argument(help="Films, or folders of frame images.")] = None,
    store: Annotated[Path, typer.Option("--out", help="The store.")] = Path("data/emotion_llama.h5"),
    npy: Annotated[Path | None, typer.Option(help="Also write a folder of .npy here, one per film and output.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="What is said, once for each film.")] = None,
    corpus: Annotated[bool, typer.Option("--corpus", help="The clips of the corpus, from the stores in features/.")] = False,
    settings: Annotated[str, typer.Option(help="A name in conf/features/, or a file.")] = "emotion_llama",
    change: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="Of the settings, e.g. readout.rows=legacy.")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Projected rows and hidden states of Emotion-LLaMA (docs/emotion_llama.md)."""
    from pipeline.devices import pick_devices
    from pipeline.errors import UserError, one_of
    from pipeline.serving.composed.extraction import Extraction
    from pipeline.serving.composed.items import read_corpus, read_films
    from pipeline.serving.composed.settings import read_settings
    from pipeline.serving.composed.write import Gathered, count, gather

    if corpus == bool(films):
        raise UserError("name films, or give --corpus for the clips of the corpus; one of the two.")
    if corpus and text:
        raise UserError("--text is for films; the clips of a corpus have the manifest's.")
    path = Path(settings) if Path(settings).suffix else CONF / f"{settings}.yaml"
    if not path.is_file():
        raise one_of("settings", settings, [file.stem for file in CONF.glob("*.yaml")])
    chosen, given = read_settings(path, change or ()), parameters.read(params)
    items = read_corpus(chosen, given) if corpus else read_films(films or [], text or [], chosen, given)
    extraction = Extraction(chosen, pick_devices(given.run.device, encodes=True)[0])
    with Gathered(store.parent) as gathered:
        for clip, reason in gather(items, extraction, gathered):
            if reason:
                out.print(f"{clip}: {reason}", soft_wrap=True)
        gathered.write_store(store, extraction)
        if npy is not None:
            gathered.write_files(npy, extraction)
    for name in extraction.outputs:
        found = ", ".join(f"{number} {status.name.lower()}" for status, number in sorted(count(gathered, name).items()))
        out.print(f"{name}: {found}", soft_wrap=True)
    if extraction.random:
        out.print(f"random, learned nothing, these features mean nothing: {', '.join(extraction.random)}", soft_wrap=True)
    out.print(f"{store}" + (f", {npy}" if npy else ""), soft_wrap=True)

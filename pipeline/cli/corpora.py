"""`corpus …`: generate, fetch and check corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import params as parameters

from .begin import begin
from .checkout import keep_out_of_git
from .options import ParamsFile, SetParams, chosen

app = typer.Typer(no_args_is_help=True, help="Generate, fetch, check corpora.")


@app.command("prepare")
def corpus_prepare(params: ParamsFile = Path("params.yaml"), folder: Path = Path("data/corpus")) -> None:
    """Generate the demo corpus, or check that a real one is where corpus.root says."""
    from pipeline.data.corpora import find_adapter
    from pipeline.data.prepare import prepare_corpus

    from .preflight import check_weights

    values = begin(params)
    if not find_adapter(values.corpus.name).generated:
        prepare_corpus(values, folder)  # where it is not there, that comes first
        check_weights(values)
    else:
        check_weights(values)
        prepare_corpus(values, folder)


@app.command("generate")
def corpus_generate(
    name: str,
    folder: Path,
    options: Annotated[list[str] | None, typer.Argument(help="Of the corpus, e.g. seed=1; none = its defaults.")] = None,
) -> None:
    """Write a generated corpus (demo, demo_afew_va) into an empty folder, outside any run."""
    from pipeline.data.prepare import generate_corpus

    generate_corpus(name, folder, options or ())
    typer.echo(f"{folder}: {name}")


@app.command("link")
def corpus_link(params: ParamsFile = Path("params.yaml"), out_file: Path = Path("data/link.txt")) -> None:
    """See that the corpus is there, linked where DVC works in a copy of the checkout, and that git ignores it."""
    from pipeline.data.link import find_corpus

    values = begin(params)
    find_corpus(values, out_file)
    keep_out_of_git(values.corpus.root)


@app.command("check")
def corpus_check(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="A recipe, then e.g. corpus.options.audio=dialogue; none = params.yaml.")
    ] = None,
    set_params: SetParams = None,
    root: Annotated[str | None, typer.Option(help="Folder of the corpus.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="One damaged clip or line is too many.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every damaged clip.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Examine a corpus folder: damage, labels, lengths, leaks. Writes nothing; the exit code is 3 when it will not train."""
    import json

    from pipeline.data.check import check_corpus

    values = chosen([*(overrides or ()), *(set_params or ())], params).model_dump()
    if root:
        values["corpus"]["root"] = root
    found = check_corpus(parameters.parse(values), strict=strict)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    else:
        from .checked import show

        show(found)
    if not found["ok"]:
        raise typer.Exit(3)


@app.command("fetch")
def corpus_fetch(
    name: Annotated[
        str, typer.Argument(help="A corpus, hf:OWNER/NAME, kaggle:OWNER/NAME, or an address like s3://BUCKET/FOLDER.")
    ],
    folder: Annotated[Path | None, typer.Argument(help="Default: corpora/NAME.")] = None,
    accept_licence: Annotated[bool, typer.Option("--accept-licence")] = False,
) -> None:
    """Download a corpus that is openly distributed, a data set by name, or a folder elsewhere; of the others, say whom to ask."""
    from pipeline.data.elsewhere import fetch_address, is_address
    from pipeline.data.fetch import fetch

    found = fetch_address(name, folder) if is_address(name) else fetch(name, folder or Path("corpora") / name, accept_licence)
    for line in found.messages:
        typer.echo(line)


@app.command("table")
def corpus_table() -> None:
    """Print the page of all corpora (docs/corpora.md)."""
    from pipeline.data.corpora.page import page

    typer.echo(page(), nl=False)


@app.command("labels")
def corpus_labels(table: Path, column: str, out_folder: Annotated[Path, typer.Option("--out")] = Path(".")) -> None:
    """Label distribution of any table: coverage and shares, as text, CSV and bar chart."""
    from pipeline.data.distribution import count_labels

    found = count_labels(table, column)
    for label, count, rows, share in found.lines():
        typer.echo(f"{label:20} {count:8d}  {rows:6.2f} % of rows  {share:6.2f} % of labels")
    found.write_csv(out_folder / f"{column}.csv")
    found.write_chart(out_folder / f"{column}.svg")

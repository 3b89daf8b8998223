"""What stands beside the stages: noise and blur, a look into files, parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import params as parameters

from .options import TOOLS, Overrides, ParamsFile, SetParams, chosen, out

app = typer.Typer()


@app.command(rich_help_panel=TOOLS)
def robustness(
    clips: Annotated[int, typer.Option(help="How many held-out clips.")] = 32,
    seed: Annotated[int, typer.Option(help="Which clips, what noise.")] = 0,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Held-out clips with noise and blur, encoded again → reports/robustness.json, and the page anew."""
    from pipeline.evaluation import robustness as figures
    from pipeline.evaluation.report import write_report
    from pipeline.serving.robustness import predict_disturbed
    from pipeline.storage.atomic import write_json

    given, reports = parameters.read(params), Path("reports")
    evaluated = figures.name_evaluation(reports)
    truth = "data/truth.parquet"
    chosen_clips = figures.choose_clips("data/folds.parquet", truth, clips, seed)
    table, reached = predict_disturbed(given, chosen_clips, seed=seed)
    metric, rows = figures.score(table, truth, "data/truth_annotations.parquet", "data/manifest.parquet")
    about = {"evaluated": evaluated, "clips": len(chosen_clips), "seed": seed, "reaches": reached}
    write_json(reports / "robustness.json", {**about, "metric": metric, "figures": rows})
    out.print(f"Open {write_report(given)}")


@app.command(rich_help_panel=TOOLS)
def inspect(
    store: Path,
    export: Annotated[Path | None, typer.Option(help="Write a media store's files here.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read it to the last byte; an index with its stores.")] = False,
) -> None:
    """Print what an HDF5 store or index holds."""
    from pipeline.storage.inspect import describe
    from pipeline.storage.inspect import verify as read_whole

    out.print(describe(store))
    if verify:
        out.print(f"{read_whole(store)} clips are as they were written")
    if export:
        from pipeline.storage.media_store import Media

        out.print(f"{Media(store).export(export)} files in {export}")


@app.command(rich_help_panel=TOOLS)
def streams() -> None:
    """List every ready-made encoder: modality, width, rate, licence, weights."""
    from pipeline.features.encoders.registry import markdown_table

    out.print(markdown_table(), soft_wrap=True)


@app.command("params", rich_help_panel=TOOLS)
def compose_params(
    overrides: Overrides = None,
    write: Annotated[bool, typer.Option("--write", help="Write params.yaml.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check params.yaml as it is.")] = False,
) -> None:
    """Compose conf/ and print, or write, the parameters."""
    if check:
        parameters.read()
        return
    from pipeline.compose import compose, text
    from pipeline.storage.atomic import write_text

    values = compose(overrides or ())
    parameters.parse(values, "conf")
    if write:
        write_text("params.yaml", text(values))
    else:
        typer.echo(text(values), nl=False)  # rich would wrap lines


@app.command(rich_help_panel=TOOLS)
def use(overrides: Overrides = None, set_params: SetParams = None) -> None:
    """Choose for all later runs: write conf/config.yaml, compose params.yaml. `recipe=…` forgets what went with another."""
    from .choice import use as choose

    values = choose([*(overrides or ()), *(set_params or ())])
    out.print(f"params.yaml: recipe {values['recipe']}, corpus in {values['corpus']['root']}", soft_wrap=True)


@app.command(rich_help_panel=TOOLS)
def check(overrides: Overrides = None, set_params: SetParams = None, params: ParamsFile = Path("params.yaml")) -> None:
    """Look at everything a run needs (weights, corpus, protocol, device, disk); say all that is wrong at once."""
    from .mend import mend
    from .preflight import Preflight

    for mended in mend():
        typer.echo(mended)
    wrong = 0
    for line in Preflight(chosen([*(overrides or ()), *(set_params or ())], params)).lines():
        typer.echo(str(line))
        wrong += not line.ok
    if wrong:
        raise typer.Exit(2)


@app.command("mend", rich_help_panel=TOOLS)
def mend_dvc() -> None:
    """Put right what a DVC that was killed left half written (`make repro` begins with it)."""
    from .mend import mend

    for line in mend():
        typer.echo(line)

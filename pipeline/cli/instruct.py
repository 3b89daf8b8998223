"""`instruct` and `generate`: a language model taught by questions about films, and one asked in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline import params as parameters

from .options import TOOLS, ParamsFile, out

app = typer.Typer(no_args_is_help=True, help="A language model taught by questions and answers about films.")
words = typer.Typer()
CONF, TAUGHT = Path("conf/instruct"), Path("models/instruct")
Folder = Annotated[Path, typer.Option("--out", help="A folder per fold lies here.")]
Folds = Annotated[list[int] | None, typer.Option("--fold", help="Of the protocol; without it all.")]


@app.command("learn")
def learn(
    settings: Annotated[str, typer.Option(help="A name in conf/instruct/, or a file.")] = "emotion_llama",
    change: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="Of the settings, e.g. batch=4.")] = None,
    fold: Folds = None,
    folder: Folder = TAUGHT,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on with what was begun.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Teach each fold; a run that was stopped goes on."""
    from pipeline.errors import one_of
    from pipeline.instruct.folds import choose_folds, teach
    from pipeline.instruct.learn import Progress
    from pipeline.instruct.settings import Settings
    from pipeline.serving.composed.settings import read_group

    path = Path(settings) if Path(settings).suffix else CONF / f"{settings}.yaml"
    if not path.is_file():
        raise one_of("settings", settings, [file.stem for file in CONF.glob("*.yaml")])
    chosen, given = read_group(Settings, path, change or ()), parameters.read(params)

    def tell(progress: Progress) -> None:
        row = progress.history[-1]
        out.print(
            f"round {row['round']} epoch {row['epoch']}: loss {row['train_loss']:.4f}, validation {row['val_loss']:.4f}",
            soft_wrap=True,
        )

    for number in choose_folds(fold or []):
        place = folder / f"fold_{number}"
        done = teach(chosen, given, number, place, fresh=fresh, on_epoch=tell)
        out.print(f"{place}{'' if done else ' is taught already'}", soft_wrap=True)


@app.command("answer")
def answer(
    fold: Folds = None,
    folder: Folder = TAUGHT,
    constrained: Annotated[bool, typer.Option("--constrained", help="Where a class is asked for, say one.")] = False,
    report: Annotated[Path, typer.Option(help="Figures; the answers lie beside them as .jsonl.")] = Path("reports/instruct.json"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Ask about the held-out clips of each fold → figures and answers."""
    from pipeline.instruct import saved
    from pipeline.instruct.answer import measure
    from pipeline.instruct.folds import choose_folds, examine
    from pipeline.storage.atomic import write_json, write_text

    given, rows, folds = parameters.read(params), list[dict](), dict[str, dict]()
    classes: tuple[str, ...] = ()
    for number in choose_folds(fold or []):
        place = folder / f"fold_{number}"
        classes = tuple(saved.read_record(place)["classes"])
        mine = list(examine(place, given, constrained=constrained))
        folds[str(number)] = measure(mine, classes)
        rows += mine
    every = measure(rows, classes)
    write_json(report, {"all": every, "folds": folds, "constrained": constrained})
    write_text(report.with_suffix(".jsonl"), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for task, found in every.items():
        told = (
            f"macro F1 {found['named']['macro_f1']:.3f} said, {found['likeliest']['macro_f1']:.3f} scored, "
            if "named" in found
            else ""
        )
        rest = f"{found['outside']} outside the list" if "named" in found else f"clues {found['clue_overlap']:.1f} of 10"
        out.print(f"{task}: {found['count']} answers, {told}{rest}", soft_wrap=True)


@app.command("merge")
def merge(
    taught: Annotated[Path, typer.Argument(help="A folder that `learn` wrote.")],
    folder: Annotated[Path, typer.Option("--out", help="The whole model, as transformers has it.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """The language model with its adapters added, as one model; projectors stay apart."""
    from pipeline.instruct.folds import open_taught
    from pipeline.instruct.saved import export

    export(open_taught(taught, parameters.read(params))[0], folder)
    out.print(f"{folder}", soft_wrap=True)


@words.command("generate", rich_help_panel=TOOLS)
def generate(
    text: str,
    weights: Annotated[str, typer.Option(help="hf:, local:, package: or random:, also of a GGUF file.")],
    architecture: Annotated[str, typer.Option(help="JSON, of a random: model.")] = "{}",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quantise: Annotated[str | None, typer.Option(help="4bit or 8bit, where bitsandbytes is there.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Of the fewest tokens whose shares reach it.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Of so many of the likeliest tokens.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Of the answer.")] = 64,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    system: Annotated[str | None, typer.Option(help="What the model is told before.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Go on with the text, without the template of conversations.")] = False,
) -> None:
    """What a language model answers to words: whether it is whole and speaks."""
    from pipeline.errors import ParamsError
    from pipeline.instruct.chat import generate as go_on
    from pipeline.models.composed.speaker import Sampling
    from pipeline.parts import read_options
    from pipeline.runs.composed import Language

    try:
        shape = json.loads(architecture)
    except ValueError as error:
        raise ParamsError(f"--architecture is no JSON ({error}).") from error
    drawn = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "max_tokens": max_tokens, "seed": seed}
    sampling = read_options(Sampling, drawn, "sampling")
    asked = {"weights": weights, "architecture": shape, "dtype": dtype, "quantise": quantise}
    typer.echo(go_on(text, read_options(Language, asked, "language"), sampling, raw=raw, system=system))

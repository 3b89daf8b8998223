"""`start`: from a folder of one's own to a recipe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import params as parameters
from pipeline.errors import UserError
from pipeline.params.base import NAME

from .options import TOOLS, out

if TYPE_CHECKING:
    from pipeline.data.start.propose import Proposal, Survey
    from pipeline.data.start.recognise import Recognised
    from pipeline.params import Params

app = typer.Typer()
#: How files begin that this command may write over.
MARK = "# Written by `python -m pipeline start`"
#: As long as an examined clip may be: the recipe says what the longest is.
LONGEST = 3600.0


@app.command(rich_help_panel=TOOLS)
def start(
    folder: Annotated[Path, typer.Argument(help="A folder of media, or a table beside them.")],
    name: Annotated[str | None, typer.Option(help="What the corpus is called; default: the folder's name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over what an earlier start wrote and somebody changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at a corpus of your own, say what it holds, and write a recipe for it. Nothing in the folder is changed."""
    from pipeline.compose import compose
    from pipeline.data.checked import check_media
    from pipeline.data.start.propose import propose, survey
    from pipeline.data.start.recognise import recognise

    called = name or _name(folder)
    if not NAME.fullmatch(called):
        raise UserError(f"--name {called}: a name is small letters, digits and _, and begins with a letter.")
    plain = compose(["recipe=generic"])
    found = recognise(folder, called)
    values = plain | {"corpus": found.corpus.model_dump(), "integrity": plain["integrity"] | {"max_duration": LONGEST}}
    checked = check_media(parameters.parse(values, "conf"))
    seen = survey(checked)
    proposal = propose(checked, seen)
    files = _write(called, found, proposal, force=force)
    params = parameters.parse(compose([f"recipe={called}"]), "conf")
    lines, verdict = _check(params)
    command = f"python -m pipeline use recipe={called} && dvc repro"
    if as_json:
        said = {
            "name": called,
            "is": found.told,
            "found": seen.plain(),
            "odd": found.odd + seen.odd,
            "proposal": proposal.__dict__,
        }
        typer.echo(json.dumps(said | {"files": files, "ok": not verdict, "wrong": verdict, "next": command}, indent=2))
    else:
        _show(folder, found, seen, proposal, lines)
        out.print(f"Wrote {' and '.join(files)}.", soft_wrap=True)
        if verdict:
            for line in verdict:
                out.print(f"[bold red]will not run:[/] {line}", soft_wrap=True)
        else:
            typer.echo(f"Next:      {command}")
            typer.echo(f"Then:      {_larger(proposal)}")
    if verdict:
        raise typer.Exit(3)


def _name(folder: Path) -> str:
    """The folder's name as one that may be a word of a command."""
    place = folder.resolve()
    word = re.sub(r"[^a-z0-9]+", "_", (place if place.is_dir() else place.parent).name.lower()).strip("_")
    return word if NAME.fullmatch(word) else f"corpus_{word}".rstrip("_")


def _write(name: str, found: Recognised, proposal: Proposal, *, force: bool, conf: Path = Path("conf")) -> list[str]:
    """Files of `conf/` for a corpus and its recipe.

    Raises:
        UserError: one is there and is another; nothing is written then.
    """
    root = Path(found.corpus.root).resolve()
    corpus: dict[str, Any] = {
        "name": found.corpus.name,
        "root": str(root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root),
        "options": found.corpus.options,
    }
    groups: list[Any] = [{"/corpus": name}]
    groups += [{f"/stream@streams.{modality}": stream} for modality, stream in proposal.streams.items()]
    groups += [{"/protocol": proposal.protocol}, {"/task": proposal.task}]
    recipe = {"defaults": groups, "recipe": name, **proposal.values}
    notes = "".join(f"# {line}\n" for line in (*found.told, *proposal.told))
    texts = {
        conf / "corpus" / f"{name}.yaml": f"{MARK}.\n{_dump(corpus)}",
        conf / "recipe" / f"{name}.yaml": f"# @package _global_\n{MARK}.\n{notes}{_dump(recipe)}",
    }
    for path, text in texts.items():
        there = path.read_text(encoding="utf-8") if path.is_file() else text
        if there != text and not (force and MARK in there):
            what = "is not of an earlier start: take another --name" if MARK not in there else "is another: --name or --force"
            raise UserError(f"{path} is there already and {what}.")
    from pipeline.storage.atomic import write_text

    for path, text in texts.items():
        write_text(path, text)
    return [str(path) for path in texts]


def _dump(value: dict[str, Any]) -> str:
    import io

    from ruamel.yaml import YAML

    yaml, text = YAML(), io.StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.dump(value, text)
    return text.getvalue()


def _check(params: Params) -> tuple[list[str], list[str]]:
    """(all lines of the preflight, what of it and of the corpus check stands in the way)."""
    from pipeline.data.check import check_corpus

    from .preflight import Preflight

    lines = list(Preflight(params).lines())
    wrong = [f"{line.subject}: {line.found}" for line in lines if not line.ok]
    if not wrong:
        wrong = check_corpus(params)["wrong"]
    return [str(line) for line in lines], wrong


def _show(folder: Path, found: Recognised, seen: Survey, proposal: Proposal, lines: list[str]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    kinds = {
        "films with sound": seen.both,
        "films without sound": seen.modalities["video"] - seen.both,
        "sounds": seen.modalities["audio"] - seen.both,
        "with words": seen.modalities["text"],
    }

    def add(name: str, text: str) -> None:
        grid.add_row(name, escape(text))

    add("is", "; ".join(found.told))
    add("clips", f"{seen.clips}: {', '.join(f'{n} {kind}' for kind, n in kinds.items() if n)}")
    if seen.lengths:
        add("seconds", "{:.1f} to {:.1f}, {:.1f} on average".format(*(seen.lengths[i] for i in (0, 2, 1))))
    add("classes", ", ".join(f"{name} {count}" for name, count in seen.classes.items()) or "none")
    if seen.dimensions:
        add("dimensions", ", ".join(f"{name} of {count} clips" for name, count in seen.dimensions.items()))
    counts = sorted(seen.speakers.values())
    add("speakers", f"{len(counts)}, {counts[0]} to {counts[-1]} clips each" if counts else "none named")
    for line in found.odd + seen.odd:
        add("odd", line)
    add("streams", ", ".join(f"{name}: {stream}" for name, stream in proposal.streams.items()))
    add("protocol", f"{proposal.protocol}; task {proposal.task}")
    for line in proposal.told:
        add("", line)
    if wrong := [line for line in lines if line.startswith("WRONG")]:
        for line in wrong:
            add("check", line)
    else:
        add("check", f"{len(lines)} things looked at, all is there")
    out.print(grid)


def _larger(proposal: Proposal) -> str:
    from pipeline.data.start.propose import LARGER

    swaps = " ".join(f"-S stream@streams.{name}={LARGER[name]}" for name in proposal.streams)
    return f"dvc exp run {swaps}   (larger encoders, from the hub)"

"""`python -m benchmarks [NAME ...]`: measure, print a table, write benchmarks/results.json."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.storage.atomic import write_json

from . import machine
from .figures import Figure

#: A module each, imported when it is run: some bring a framework along.
BENCHMARKS = (
    *("manifest", "store", "cache", "efficiency", "readouts", "naive", "invariance", "resident", "epoch", "contrast", "members"),
    *("language", "peak", "million", "gpu", "dag", "predict"),
)
RESULTS = Path(__file__).with_name("results.json")
MARKS = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}


def run(name: str, *, tiny: bool = False, **options: object) -> list[Figure]:
    """One benchmark in a temporary folder.

    Args:
        options: of its `Size`; those it has not, and None, are left out.
    """
    module = import_module(f"{__package__}.{name}")
    size = module.TINY if tiny else module.Size()
    size = replace(size, **{key: value for key, value in options.items() if value is not None and hasattr(size, key)})
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        return module.measure(Path(folder), size)


def save(path: Path, figures: dict[str, list[Figure]], described: dict) -> None:
    """Figures beside those of other benchmarks already there, each with the machine it was taken on."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(
        path,
        known | {name: {"machine": described, "figures": [figure.plain() for figure in rows]} for name, rows in figures.items()},
    )


def table(figures: dict[str, list[Figure]]) -> Table:
    result = Table("benchmark", "figure", "value", "unit", "target", "", box=box.SIMPLE)
    for name, rows in figures.items():
        for figure in rows:
            value = "–" if figure.value is None else f"{figure.value:.4g}"
            result.add_row(name, figure.name, value, figure.unit, figure.target, MARKS[figure.met])
        result.add_section()
    return result


def main(words: list[str] | None = None) -> int:
    """Exit code 0 when every target with a value is met, 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--tiny", "--small", action="store_true", help="a few clips: does it run? The figures mean nothing")
    parser.add_argument("--workspace", type=Path, default=Path(), help="finished workspace for `dag`; default: this folder")
    parser.add_argument("--clips", type=int, help="of `million`; default: 100000")
    parser.add_argument("--device", help="of `gpu`; default: the first GPU, if there is one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if given.clips is not None and given.clips < 10:
        parser.error(f"--clips {given.clips}; at least 10")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    console, described, figures = Console(highlight=False), machine.describe(), {}
    for name in given.names or BENCHMARKS:
        console.print(f"{name} …", style="dim")
        workspace = None if given.tiny else given.workspace.resolve()
        clips = given.clips if name == "million" else None
        figures[name] = run(name, tiny=given.tiny, workspace=workspace, clips=clips, device=given.device)
        if not given.tiny or given.out != RESULTS:
            save(given.out, {name: figures[name]}, described)
    # As wide as its longest line, also into a file.
    Console(width=max(console.width, 120), highlight=False).print(table(figures))
    return int(any(figure.met is False for rows in figures.values() for figure in rows))


if __name__ == "__main__":
    raise SystemExit(main())

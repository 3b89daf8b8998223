"""What docs/checklist.md names is there: tests by file and name, commands as they are given."""

import ast
import functools
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from benchmarks.__main__ import BENCHMARKS
from pipeline.cli import app

ROOT = Path(__file__).resolve().parents[1]
ROWS = re.findall(r"^\| (\S+) \| (.+) \| (.+) \|$", (ROOT / "docs/checklist.md").read_text(encoding="utf-8"), re.MULTILINE)
ROWS = [row for row in ROWS if row[0] != "id"]
NAMED = sorted({named for *_, shown in ROWS for named in re.findall(r"`([^`]+)`", shown)})
TESTS = [named for named in NAMED if "::" in named]
COMMANDS = [named for named in NAMED if "::" not in named]


@functools.lru_cache
def functions(path):
    return {one.name for one in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(one, ast.FunctionDef)}


def parse(words):
    """Read a command as the program does, down to its options, and run nothing.

    Raises:
        TyperException: there is no such command, option or argument.
    """
    command, name = typer.main.get_command(app), "pipeline"
    while True:
        try:
            context = command.make_context(name, list(words))
        except typer.Exit:  # --help
            return
        if not isinstance(command, TyperGroup):
            break
        rest = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)
    for study in context.params.get("names", []) if name == "study" else []:
        assert (ROOT / "conf/study" / f"{study}.yaml").is_file(), study


def test_a_row_per_feature_and_something_that_shows_it():
    ids = [row[0] for row in ROWS]
    assert len(ids) > 70 and len(ids) == len(set(ids))
    for name, feature, shown in ROWS:
        assert re.fullmatch(r"[SXB]\d?-\d\d", name) and feature.strip()
        assert re.sub(r"`[^`]+`|, ", "", shown) == "" and shown, name


@pytest.mark.parametrize("named", TESTS)
def test_a_test_that_is_named_is_there(named):
    file, name = named.split("::")
    assert name.startswith("test_") and name in functions(ROOT / "tests" / file)


@pytest.mark.parametrize("named", COMMANDS)
def test_a_command_that_is_named_can_be_given(named):
    """`-S` of `dvc exp run` is composed in `test_params.py`, as in all of the documentation."""
    words = shlex.split(named)
    match words:
        case ["python", "-m", "pipeline", *given]:
            parse(given)
        case ["python", "-m", "benchmarks", *given]:
            assert given and not set(given) - set(BENCHMARKS)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["dvc", *given]:
            from dvc.cli.parser import get_main_parser

            assert get_main_parser().parse_args(given).func
        case _:
            pytest.fail(f"{named} is no command of this project")


@pytest.mark.parametrize("words", [["stdy"], ["study", "--pln", "fusion"], ["corpus", "fetsh"], ["predict"]])
def test_a_command_that_cannot_be_given_is_seen(words):
    with pytest.raises(TyperException, match=r"No such|Missing"):
        parse(words)

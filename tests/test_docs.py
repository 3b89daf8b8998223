"""What docs/checklist.md names is there: tests by file and name, commands as they are given."""

import ast
import functools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from ruamel.yaml import YAML
from typer.core import TyperGroup
from typer.exceptions import TyperException

from benchmarks.__main__ import BENCHMARKS
from pipeline.cli import app
from pipeline.compose import compose
from pipeline.params import parse_stream

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


PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
#: Commands of other programs that the tutorials name.
OTHERS = {"ray", "affectory"}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def given(page):
    """The commands of a tutorial, each as its words."""
    for line in "".join(blocks(page, "bash")).splitlines():
        for words in " ".join(shlex.split(line, comments=True)).split(" && "):
            yield page.stem, words


@pytest.mark.parametrize(("page", "command"), [one for page in PAGES for one in given(page)])
def test_a_command_of_a_tutorial_can_be_given(page, command):
    words = command.split()
    match words:
        case ["python", "-m", "pipeline", "use", *overrides]:
            compose([one for one in overrides if one != "recipe=films"], ROOT / "conf")
        case ["python", "-m", "pipeline", *rest]:
            parse(rest)
        case ["python", "-m", "pip", "install", "-r", file]:
            assert (ROOT / file).is_file()
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["dvc", *rest]:
            from dvc.cli.parser import get_main_parser

            assert get_main_parser().parse_args(rest).func
        case [program, *_]:
            assert program in OTHERS, command


def test_every_tutorial_is_in_the_table_of_contents():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert PAGES and all(f"tutorials/{page.stem}\n" in index for page in PAGES)


def test_the_figures_are_what_their_page_says():
    scope: dict = {}
    code = blocks(ROOT / "docs/tutorials/figures.md", "python")
    assert len(code) == 3
    for one in code:
        exec(compile(one, "figures.md", "exec"), scope)


def test_the_notebook_page_runs_on_any_project(fabricate, monkeypatch, capsys):
    monkeypatch.chdir(fabricate().folder)
    scope: dict = {}
    for one in blocks(ROOT / "docs/tutorials/notebook.md", "python"):
        exec(compile(one, "notebook.md", "exec"), scope)
    said = capsys.readouterr().out
    assert said.startswith("demo/clip000 (") and float(said.split("UAR ")[1]) > 0.3  # sound tells one bit of two


def test_the_encoder_page_runs_and_its_stream_is_one(tmp_path, monkeypatch, capsys):
    page = ROOT / "docs/tutorials/encoder.md"
    (text,) = blocks(page, "yaml")
    stream = parse_stream(YAML(typ="safe", pure=True).load(text), page)
    assert stream.encoder == "hubert" and stream.weights == "local:weights/wav2vec2_mine"
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", np.sin(np.arange(16000) / 5).astype(np.float32), 16000)
    (code,) = blocks(page, "python")
    exec(compile(code, "encoder.md", "exec"), {})
    assert capsys.readouterr().out.startswith("(")

"""`dvc.yaml` against the code: an edit that can change what a stage writes makes DVC run it again."""

import ast
import functools
import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import cli, code
from pipeline.cli import corpora, stages
from pipeline.compose import compose

ROOT = Path(__file__).resolve().parents[1]
STAGES = {
    name: stage.get("do") or stage for name, stage in YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].items()
}
#: Packages whose files are found by name when they are asked for, by other means than `pipeline.parts`.
FOUND_BY_NAME = ("pipeline.data.corpora", "pipeline.features.encoders")


def entries(command: str | list[str]) -> list[str]:
    """Modules that a command of `dvc.yaml` (of several, the last) imports, read from its function in `pipeline/cli/`."""
    words = (command if isinstance(command, str) else command[-1]).split()[3:]
    app, name = (corpora.app, words[1]) if words[0] == "corpus" else (stages.app, words[0])
    (function,) = (one.callback for one in app.registered_commands if (one.name or one.callback.__name__) == name)
    found = code.imported(textwrap.dedent(inspect.getsource(function)), cli.__name__)
    return [one for one in found if code._file(one) is not None]


def packages_of_parts(path: Path) -> set[str]:
    """Packages that a file finds parts in: `Parts("pipeline.models.fusion", …)`."""
    source = path.read_text(encoding="utf-8")
    if "Parts" not in source:
        return set()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    named = [call.args[0].value for call in calls if ast.unparse(call.func).split("[")[0].endswith("Parts")]
    return set(named)


@functools.cache
def decisive(*modules: str) -> dict[str, Path]:
    """The closure of modules, with every part one of them may ask for; files that hold no code left out."""
    found = code.closure(*modules)
    while True:
        packages = {one for one in FOUND_BY_NAME if one in found}.union(*map(packages_of_parts, found.values()))
        parts = {
            name
            for package in packages
            for path in (ROOT / package.replace(".", "/")).rglob("*.py")
            if (name := ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")) not in found
        }
        if not parts:
            break
        found |= code.closure(*parts)
    return {name: path for name, path in found.items() if code.significant(path.read_text(encoding="utf-8"))}


def covers(dependency: str, path: Path) -> bool:
    return path == ROOT / dependency or ROOT / dependency in path.parents


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_imports_lies_under_its_deps(name):
    modules = entries(STAGES[name]["cmd"])
    assert modules
    dependencies = [one for one in STAGES[name]["deps"] if one.startswith("pipeline/")]
    paths = decisive(*modules).values()
    missing = [str(path.relative_to(ROOT)) for path in paths if not any(covers(one, path) for one in dependencies)]
    assert not missing, f"dvc.yaml, {name}: not under deps"


@pytest.mark.parametrize("name", STAGES)
def test_every_code_dependency_is_there_and_decides_something(name):
    paths = decisive(*entries(STAGES[name]["cmd"])).values()
    for dependency in STAGES[name]["deps"]:
        if dependency.startswith("pipeline/"):
            assert any(covers(dependency, path) for path in paths), dependency


def stages_that_run_after(path: str) -> set[str]:
    return {name for name, stage in STAGES.items() if any(covers(one, ROOT / path) for one in stage["deps"])}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("pipeline/models/fusion/gated.py", {"train"}),
        ("pipeline/training/loop.py", {"train"}),
        ("pipeline/training/answers/clips.py", {"train"}),
        ("pipeline/evaluation/report.py", {"evaluate", "report"}),
        ("pipeline/evaluation/intervals.py", {"evaluate", "report"}),
        ("pipeline/features/encoders/audio/hubert.py", {"adapt", "extract", "transcribe"}),
        ("pipeline/data/demo/voice.py", {"corpus", "manifest", "frames", "audio", "faces"}),
        ("pipeline/params/learning.py", set()),
        ("pipeline/progress.py", set()),
    ],
)
def test_an_edit_reaches_no_more_stages_than_it_must(path, names):
    assert stages_that_run_after(path) == names


def test_what_is_written_is_read():
    """By another stage, as the source of a stream, by `dvc metrics` and `dvc plots`, or in the end by people."""
    written = {path if isinstance(path, str) else next(iter(path)) for stage in STAGES.values() for path in stage["outs"]}
    read = {path for stage in STAGES.values() for path in stage["deps"]} | {"data/faces.h5", "data/transcripts.parquet"}
    unread = {path for path in written if not {path, *map(str, Path(path).parents)} & read}
    pages = {"reports/index.html", "reports/clips.html", "reports/clips"}
    assert unread == pages | {"reports/submission.csv", "reports/plots/variants.csv", "data/faces.parquet"}


def test_an_edited_file_of_folds_is_seen():
    """The stage depends on the file itself; where the protocol has none, on something that it depends on anyway."""
    manifest = STAGES["manifest"]["deps"]
    assert "${protocol.file}" in manifest
    assert YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["protocol"]["file"] in manifest
    assert compose(["protocol=file", "protocol.file=mine.csv"], ROOT / "conf")["protocol"]["file"] == "mine.csv"


def test_parts_found_by_name_count(tmp_path):
    found = set(decisive(*entries("python -m pipeline extract audio")))
    assert {"pipeline.features.encoders.audio.hubert", "pipeline.features.encoders.text.glove"} <= found
    file = tmp_path / "registry.py"
    file.write_text(
        'A = Parts("pipeline.models.fusion", object, "fusion")\nB = parts.Parts[B]("pipeline.models.heads", B, "b")\n'
    )
    assert packages_of_parts(file) == {"pipeline.models.fusion", "pipeline.models.heads"}


def test_a_name_in_a_command_is_checked_before_and_quoted(tmp_path):
    """The shell gets the commands one after the other, as DVC gives them; the name of the stream is hostile."""
    checked, command = STAGES["extract"]["cmd"]
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name in ("x;touch PWNED;y", "x';touch PWNED;'", "$(touch PWNED)", "`touch PWNED`", "../../evil"):
        bad = values | {"streams": {name: values["streams"]["audio"]}}
        with open(tmp_path / "params.yaml", "w", encoding="utf-8") as file:
            YAML(typ="safe").dump(bad, file)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(checked, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and repr(name)[1:-1] in done.stderr.replace("\n", ""), done.stderr
    assert command == "python -m pipeline extract '${key}'"
    assert STAGES["adapt"]["cmd"] == [checked, "python -m pipeline adapt '${key}'"]
    assert not list(tmp_path.glob("*PWNED*"))


def test_every_command_is_a_stage():
    tree = ast.parse((ROOT / "pipeline" / "cli" / "stages.py").read_text())
    commands = [one for one in tree.body if isinstance(one, ast.FunctionDef)]
    assert len(commands) == len(STAGES) - 2  # `corpus` and `link` stand in corpora.py

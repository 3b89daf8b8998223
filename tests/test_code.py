"""The digest of code: every file that is imported counts, comments do not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import code

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of this one: `write(name, text)`."""
    monkeypatch.setattr(code, "FOLDER", tmp_path / "pipeline")

    def write(name, text):
        path = tmp_path / "pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        code._file_digest.cache_clear()

    write("__init__.py", "")
    write("a/__init__.py", "")
    write("a/one.py", "from .deep.two import x\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import hints\n")
    write("a/deep/__init__.py", "")
    write("a/deep/two.py", "def x():\n    from pipeline.b import y\n    return y\n")
    write("a/hints.py", "")
    write("b.py", "y = 1\n")
    write("progress.py", "z = 1\n")
    return write


def test_closure_follows_imports_however_deep_and_wherever_they_stand(package):
    assert list(code.closure("pipeline.a.one")) == [
        "pipeline",
        "pipeline.a",
        "pipeline.a.deep",
        "pipeline.a.deep.two",
        "pipeline.a.one",
        "pipeline.b",
    ]


@pytest.mark.parametrize("name", ["a/one.py", "a/deep/two.py", "b.py", "a/deep/__init__.py"])
def test_an_edit_anywhere_in_the_closure_changes_the_digest(package, name):
    before = code.code_digest("pipeline.a.one")
    path = code.FOLDER / name
    package(name, path.read_text() + "more = 2\n")
    assert code.code_digest("pipeline.a.one") != before


def test_comments_docstrings_and_exempt_modules_do_not_count(package):
    package("b.py", "from pipeline import progress\ndef f():\n    return '# no comment'\ny = 1\n")
    before = code.code_digest("pipeline.a.one")
    package(
        "b.py",
        '"""Doc."""\nfrom pipeline import progress  # why\n\ndef f():\n    """Doc\n    # more\n    """\n'
        "    return '# no comment'\n\n\n# a line\ny = 1\n",
    )
    package("progress.py", "z = 2\n")
    assert code.code_digest("pipeline.a.one") == before
    package("b.py", (code.FOLDER / "b.py").read_text().replace("no comment", "another"))
    assert code.code_digest("pipeline.a.one") != before


def test_a_name_that_is_no_module(package):
    with pytest.raises(ModuleNotFoundError, match="pipeline.none"):
        code.closure("pipeline.none")


def test_what_training_imports_is_what_python_says():
    """Against the interpreter: every module of ours that importing brings in is in the closure, or exempt."""
    import subprocess

    name = "pipeline.training.loop"
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {name}; print(*(m for m in sys.modules if m.startswith('pipeline')))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {m for m in said if not code._exempt(m)} <= set(code.closure(name))


ASK = """
import ast, sys
from pipeline import code
parsed, parse = [], ast.parse
ast.parse = lambda *given, **more: parsed.append(1) or parse(*given, **more)
print(code.code_digest("pipeline.metrics"), len(parsed))
"""


def test_what_sources_say_is_kept_beside_compiled_modules_by_their_bytes(tmp_path):
    for name in ("__init__.py", "code.py", "metrics.py"):
        (tmp_path / "pipeline").mkdir(exist_ok=True)
        shutil.copy(ROOT / "pipeline" / name, tmp_path / "pipeline")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def ask() -> tuple[str, int]:
        words = [sys.executable, "-c", ASK]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        digest, parsed = done.stdout.split()
        return digest, int(parsed)

    first, parsed = ask()
    assert parsed > 0 and ask() == (first, 0)
    (kept,) = (tmp_path / "pipeline/__pycache__").glob("code.*.json")
    kept.write_text("[half")
    assert ask() == (first, parsed)
    metrics = tmp_path / "pipeline/metrics.py"
    before = metrics.read_text()
    metrics.write_text(before + "\nMORE = 1\n")
    edited, again = ask()
    assert edited != first and again > 0
    metrics.write_text(before)
    assert ask() == (first, 0)

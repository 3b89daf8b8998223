"""Which code decides a feature: the family's own, and what the engine does to its rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = ("clip", "hubert", "text", "mae", "logmel", "import", "videomae", "zero_shot")
SCRIPT = """
import json, sys
from pipeline.code import code_digest
from pipeline.features import transcribe
from pipeline.features.encoders import registry
from pipeline.features.transcribe import Recogniser

codes = {name: code_digest(registry.FAMILIES.find(name).__module__, *registry.AROUND) for name in sys.argv[1:]}
codes["transcribe"] = code_digest("pipeline.features.transcribe")
assert not {"torch", "transformers"} & set(sys.modules)
print(json.dumps(codes))
"""
ALL = {*FAMILIES, "transcribe"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package, to be edited."""
    return Path(shutil.copytree(ROOT / "pipeline", tmp_path_factory.mktemp("copy") / "pipeline")).parent


def read_codes(folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *FAMILIES],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=folder,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def before(copy):
    return read_codes(copy)


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("features/encoders/pooling.py", ALL),
        ("features/engine/reader.py", ALL - {"transcribe"}),
        ("features/engine/forward.py", ALL - {"transcribe"}),
        ("features/encoders/audio/hubert.py", {"hubert"}),
        ("features/encoders/audio/unpadded.py", {"hubert"}),
        ("features/encoders/vision/clip.py", {"clip", "zero_shot"}),
        ("features/encoders/vision/images.py", {"clip", "mae", "videomae", "zero_shot"}),
        ("features/encoders/text/tokens.py", {"text", "import", "zero_shot", "transcribe"}),
        ("features/encoders/registry.py", set()),
        ("features/engine/run.py", set()),
        ("features/transcribe.py", {"transcribe"}),
    ],
)
def test_what_an_edit_changes(copy, before, file, changed):
    path = copy / "pipeline" / file
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text + "\n\nADDED = 1\n", encoding="utf-8")
        after = read_codes(copy)
    finally:
        path.write_text(text, encoding="utf-8")
    assert {name for name in before if before[name] != after[name]} == changed

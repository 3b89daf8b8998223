"""The examples in docstrings are right, in a folder and with a cache of their own."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "pipeline").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert tried and not failed


@pytest.mark.parametrize(
    "name",
    [
        "code",
        "devices",
        "errors",
        "parts",
        "storage.atomic",
        "storage.clip_cache",
        "storage.feature_store",
        "storage.flac",
        "storage.folder_lock",
        "storage.hdf5",
        "storage.housekeeping",
        "storage.inspect",
        "storage.jpeg",
        "storage.memo",
        "storage.tables",
        "weights.inside",
        "weights.listing",
        "weights.source",
        "workers.pool",
        "workers.transfer",
        "workers.worker",
    ],
)
def test_the_entries_a_newcomer_meets_have_one(name):
    assert f"pipeline.{name}" in MODULES

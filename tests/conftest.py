"""Fixtures every test folder may use."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


#: Files of few tests that take minutes. They come first: begun last, one core would wait for them.
LONG = {
    f"tests/{name}.py" for name in ("test_dag", "test_experiments", "features/engine/test_ray", "features/engine/test_threads")
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, and nothing else moved."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONG)


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of real third-party files: `$REAL_DATA`, else `../shared/real` beside the checkout."""
    folder = Path(os.environ.get("REAL_DATA") or ROOT.parent / "shared" / "real")
    if not folder.is_dir():
        pytest.skip(f"real data is not here ({folder})")
    return folder


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """No test touches the user's clip cache."""
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fabricate(tmp_path):
    """`fabricate(**options)` → features, tables and parameters of a corpus without media (tests/fabricated.py)."""
    # Loaded by path: test folders are not packages.
    specification = importlib.util.spec_from_file_location("fabricated", ROOT / "tests" / "fabricated.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    def make(name: str = "corpus", **options):
        return module.Fabricated(tmp_path / name, **options)

    return make

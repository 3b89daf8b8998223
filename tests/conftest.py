"""Fixtures every test folder may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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

"""A tiny generated corpus, made once per test run."""

from __future__ import annotations

import pytest

from pipeline.data.demo.generate import generate
from pipeline.data.demo.options import Options

TINY = {"sessions": 2, "dialogues": 2, "turns": 6, "size": 64, "fps": 8, "shortest": 0.8, "longest": 1.2}


@pytest.fixture(scope="session")
def tiny_options():
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(folder, options) of twelve clips; one lacks text, one sound, one the picture."""
    folder = tmp_path_factory.mktemp("demo")
    options = Options.model_validate(TINY | {"no_text": 0.08, "no_sound": 0.08, "no_picture": 0.08})
    generate(options, folder, workers=1)
    return folder, options

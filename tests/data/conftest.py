"""Small corpora and parameters for the tests of `pipeline.data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import params


@pytest.fixture
def tone():
    """Write a tone: (path, seconds, frequency, amplitude) → path; other frequencies, other bytes."""

    def write(path: Path, seconds: float = 0.5, frequency: float = 220.0, amplitude: float = 0.3) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(8000 * seconds)) / 8000
        soundfile.write(path, (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32), 8000)
        return path

    return write


@pytest.fixture
def settings():
    """(corpus name, root, options, **groups) → Params."""

    def make(name: str, root: Path, options: dict | None = None, **groups: dict) -> params.Params:
        stream = {"modality": "audio", "source": "data/audio.h5", "encoder": "hubert", "weights": "random:0"}
        return params.parse(
            {
                "recipe": "test",
                "corpus": {"name": name, "root": str(root), "options": options or {}},
                "streams": {"audio": stream},
                "fusion": {"name": "concat"},
                "run": {"workers": 1},
                "quarantine": {"max_rate": 0.9},
                **groups,
            }
        )

    return make

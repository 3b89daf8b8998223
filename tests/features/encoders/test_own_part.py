"""An encoder of one's own: the example of docs/encoders.md, as one file in a folder of one's own and one stream."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline import params as parameters
from pipeline.storage import flac, media_store, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Store

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/encoders.md").read_text(encoding="utf-8")
SCRIPT = """
import json, sys
from pathlib import Path
from pipeline import params
from pipeline.features.encoders import registry
from pipeline.features.extract import extract

read = params.read("params.yaml")
extract(read, "tones")
extractor = registry.build(read.stream("tones"))
print(json.dumps([extractor.identity, extractor.prepare.func.__module__]))
"""


def block(language: str, mark: str) -> str:
    """The block of code of the page that holds `mark`."""
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if mark in code]
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two clips of sound as decoded, the part and its stream."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/encoders").mkdir(parents=True)
    (tmp_path / "mine/encoders/tones.py").write_text(block("python", "class Tones"), encoding="utf-8")
    values = parameters.read(ROOT / "params.yaml").model_dump(mode="json")
    stream = YAML(typ="safe", pure=True).load(block("yaml", "encoder: tones"))
    values |= {"streams": {"tones": stream}, "run": values["run"] | {"workers": 2, "device": "cpu"}}
    with open("params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    rows, entries = [], {}
    for i, pitch in enumerate((220, 440)):
        wave = np.sin(2 * np.pi * pitch * np.arange(16000) / 16000).astype(np.float32)
        rows.append({"id": f"c{i}", "corpus": "demo", "content": f"{i}0", "duration": 1.0, "audio": "a"})
        entries[f"{i}0"] = media_store.join_files([flac.encode(wave, 16000)], np.array([[0, 1]], np.float32))
    tables.write(tables.frame(rows), tmp_path / "data/manifest.parquet")
    with ClipCache("audio", {"rate": 16000}) as cache:
        cache.put(entries)
        media_store.pack(tmp_path / "data/audio.h5", rows, "audio", cache, {"rate": 16000}, {})
    return tmp_path


def run() -> list:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "AFFECTORY_PARTS": "mine"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_example_of_the_documentation_extracts(folder):
    identity, own = run()
    store = Store(folder / "features/tones.h5")
    assert own == "pipeline.features.encoders.tones" and identity["family"] == "tones"
    assert store.shape[1:] == (8,) and store.ids == ["c0", "c1"]
    assert not np.array_equal(store["c0"].values, store["c1"].values)
    part = folder / "mine/encoders/tones.py"
    part.write_text("# A comment decides nothing.\n" + part.read_text(encoding="utf-8"), encoding="utf-8")
    assert run()[0] == identity
    part.write_text(part.read_text(encoding="utf-8").replace("axis=1", "axis=-1"), encoding="utf-8")
    assert run()[0]["code"] != identity["code"]

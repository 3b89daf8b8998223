"""With nothing to compute, nothing heavy is imported: seconds per stage that a rerun would pay for nothing."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import params as parameters
from pipeline.features import encoders
from pipeline.features.encoders import registry
from pipeline.features.engine import reader
from pipeline.storage import flac, media_store, memo, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry
from pipeline.storage.media_store import Media

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "torchaudio", "torchvision", "transformers", "timm", "open_clip", "pandas", "scipy", "sklearn")
SCRIPT = """
import json, sys
from pathlib import Path
from pipeline import params
from pipeline.features.encoders import registry
from pipeline.features.extract import extract

for name, (stream, _) in registry.read_streams(sys.argv[2]).items():
    if name in sys.argv[3].split():
        registry.build(stream)
read = params.read("params.yaml")
for name in read.streams:
    extract(read, name)
print(json.dumps([name for name in sys.argv[1].split() if name in sys.modules]))
"""


def test_cached_extract_and_every_stand_in_import_no_framework(tmp_path, monkeypatch):
    """The default streams through the stage with all clips cached, and `build` of every ready-made `random:` stream."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    params = parameters.read(tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    rows = [{"id": "a", "corpus": "demo", "content": "0a", "text": "so it goes", "duration": 1.0, "video": "a", "audio": "a"}]
    table = tables.frame(rows)
    tables.write(table, tmp_path / "data/manifest.parquet")
    times = np.array([[0, 1]], np.float32)
    for modality, item, identity in (
        ("video", b"jpeg", {"kind": "frames"}),
        ("audio", flac.encode(np.zeros(16000, np.float32), 16000), {"rate": 16000}),
    ):
        with ClipCache(modality, identity) as cache:
            cache.put({"0a": media_store.join_files([item], times)})
            name = {"video": "frames", "audio": "audio"}[modality]
            media_store.pack(tmp_path / f"data/{name}.h5", rows, modality, cache, identity, {})
    for stream in params.streams.values():
        identity = dict(registry.build(stream).identity)
        if stream.modality != "text":
            identity["decode"] = Media(stream.source).identity
        with ClipCache("extract", identity) as cache:
            cache.put({job.content: Entry(np.ones((1, 4), np.float32), times) for job in reader.list_jobs(table, stream)})
    stand_ins = []
    for name, (stream, _) in registry.read_streams(ROOT / "conf/stream").items():
        # Those of timm and open_clip ask in the same way; importing these two takes longest.
        if stream.weights.startswith("random:") and stream.encoder not in ("timm", "mosaic", "open_clip"):
            registry.build(stream)  # asks the libraries, once
            stand_ins.append(name)
    assert len(stand_ins) > 5
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, " ".join(HEAVY), str(ROOT / "conf/stream"), " ".join(stand_ins)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert len(list((tmp_path / "features").glob("*.h5"))) == len(params.streams) == 3


LIGHT = (
    "pipeline.cli",
    "pipeline.data.build",
    "pipeline.data.prepare",
    "pipeline.data.media",
    "pipeline.data.faces.stage",
    "pipeline.features.transcribe",
    "pipeline.features.extract",
    "pipeline.features.index",
    "pipeline.evaluation.report",
    *(
        item.name
        for item in pkgutil.walk_packages(encoders.__path__, "pipeline.features.encoders.")
        if not item.name.endswith((".unpadded", ".emotion2vec_network", ".whisper_network"))
    ),
)  # layers of a network, for `load` alone


def test_light_stages_import_no_framework():
    script = f"import importlib, sys\nfor name in {LIGHT}: importlib.import_module(name)\n" + (
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_facts_are_asked_once_and_again_when_something_changes():
    asked = []

    def ask():
        asked.append(1)
        return {"size": (1, 2)}

    def fact(about, libraries=("numpy",)):
        return memo.ask_library("test", ask, libraries=libraries, about=about)

    assert fact({"kind": "a"}) == fact({"kind": "a"}) == {"size": [1, 2]} and len(asked) == 1
    fact({"kind": "b"})
    fact({"kind": "a"}, ("numpy", "no-such-package"))
    assert len(asked) == 3


def test_errors_are_no_facts():
    def fail():
        raise ValueError("not so")

    for _ in range(2):
        with pytest.raises(ValueError, match="not so"):
            memo.ask_library("test", fail, libraries=(), about=None)
    assert memo.ask_library("test", lambda: None, libraries=(), about=None) is None


def test_facts_need_no_writable_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "file"))
    assert memo.ask_library("test", lambda: [1], libraries=(), about=None) == [1]

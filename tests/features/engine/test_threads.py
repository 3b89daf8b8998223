"""The bytes of a store do not depend on how many threads or cores the machine offers; on the parameter they may."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.features.encoders import registry
from pipeline.params import Stream
from pipeline.storage import flac, media_store, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Store
from pipeline.threads import computing

ROOT = Path(__file__).resolve().parents[3]
#: Wide enough that torch divides its sums among threads.
STREAM = {
    "modality": "audio",
    "source": "audio.h5",
    "encoder": "hubert",
    "weights": "random:0",
    "architecture": {
        "hidden_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "conv_dim": [96] * 7,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 4,
    },
    "store": {"dtype": "float32"},
}
SCRIPT = """
import os, sys
from pathlib import Path
from pipeline import params
from pipeline.features.extract import extract
if sys.argv[3] == "one core":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
os.environ["AFFECTORY_CACHE"] = sys.argv[2] + ".cache"
extract(params.read("params.yaml"), "audio", manifest="manifest.parquet", out=sys.argv[2])
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six clips of noise, decoded, and the parameters of a stream that hears them."""
    folder, chance = tmp_path_factory.mktemp("threads"), np.random.default_rng(0)
    rows, entries = [], {}
    for i in range(6):
        wave = chance.uniform(-0.5, 0.5, 16000 + 1600 * i).astype(np.float32)
        rows.append({"id": f"clip{i}", "content": f"c{i}", "audio": "x", "duration": len(wave) / 16000})
        entries[f"c{i}"] = media_store.join_files([flac.encode(wave, 16000)], np.array([[0, len(wave) / 16000]]))
    with ClipCache("audio", {"rate": 16000}, base=folder / "cache") as cache:
        cache.put(entries)
        media_store.pack(folder / "audio.h5", rows, "audio", cache, {"rate": 16000}, {})
    tables.write(tables.frame(rows), folder / "manifest.parquet")
    return folder


def extract(folder, name, threads=1, workers=1, cores="all", **variables):
    from ruamel.yaml import YAML

    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        streams = {"audio": STREAM | {"threads": threads}}
        values = {"recipe": "demo", "corpus": {"name": "demo", "root": "."}, "streams": streams, "fusion": {"name": "concat"}}
        YAML().dump(values | {"run": {"workers": workers, "device": "cpu"}}, file)
    environment = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, "", name, cores],
        cwd=folder,
        env=environment | variables | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    return (folder / name).read_bytes()


def test_other_numbers_of_threads_give_the_same_bytes(corpus):
    whole = extract(corpus, "unset.h5")
    for name, options in {
        "one": {"OMP_NUM_THREADS": "1"},
        "two": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        "seven": {"OMP_NUM_THREADS": "7", "workers": 0},
        "core": {"cores": "one core"},
    }.items():
        assert extract(corpus, f"{name}.h5", **options) == whole, name
    assert np.isfinite(Store(corpus / "unset.h5").values).all()


def test_the_threads_asked_for_decide_and_are_identity(corpus):
    two = extract(corpus, "asked2.h5", threads=2, OMP_NUM_THREADS="1")
    assert extract(corpus, "asked2c.h5", threads=2, cores="one core", OMP_NUM_THREADS="3") == two
    one, other = (registry.build(Stream(**(STREAM | {"threads": n}))) for n in (1, 2))
    assert one.identity["threads"] == 1 and other.identity == one.identity | {"threads": 2}
    with pytest.raises(ValueError, match="threads"):
        Stream(**(STREAM | {"threads": 0}))


@pytest.mark.parametrize("before", [1, 2])
def test_what_was_set_before_is_set_again(before):
    held = torch.get_num_threads()
    try:
        torch.set_num_threads(before)
        with pytest.raises(KeyError), computing(3):
            assert torch.get_num_threads() == 3
            raise KeyError
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(held)

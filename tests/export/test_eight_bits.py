"""Encoders in eight bits: smaller, near the encoder, and judged on the held-out clips."""

from __future__ import annotations

import re
import warnings

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.export import eight_bits, graphs, towers
from pipeline.export.folder import export
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Prepared
from pipeline.features.extract import extract
from pipeline.params import Stream
from pipeline.storage import tables
from pipeline.storage.feature_store import Status, Store
from pipeline.training.stage import train

pytest.importorskip("onnx", reason="onnx is not installed (requirements-export.txt)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-export.txt)")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = {
    "modality": "text",
    "source": "data/manifest.parquet",
    "encoder": "text",
    "weights": "random:0",
    "architecture": SMALL | {"vocab_size": 512, "max_position_embeddings": 64},
    "pooling": "mean",
}


@pytest.fixture
def corpus(fabricate, monkeypatch):
    """Trained on what a small text encoder makes of words that tell the class; in its folder."""
    made = fabricate(clips=40)
    monkeypatch.chdir(made.folder)
    table = tables.read("data/manifest.parquet")
    said = [f"word{kind} of clip {i}" if i % 15 != 10 else None for i, kind in enumerate(made.classes)]
    table = table.with_columns(text=pl.Series(said, dtype=pl.String), content=pl.col("id"))
    tables.write(table, "data/manifest.parquet")
    params = made.params(streams={"text": WORDS}, training={"epochs": 2})
    extract(params, "text")
    train(params, made.index(params), **made.files)
    return params


def test_an_encoder_in_eight_bits_is_measured_on_the_held_out_clips(corpus, tmp_path):
    left = export(corpus, tmp_path / "out", onnx=True, encoders=True, int8=True)
    folder = tmp_path / "out/onnx"
    names = {"head.onnx", "head_int8.onnx", "encoder_text.onnx", "encoder_text_int8.onnx"}
    assert {path.name for path in folder.iterdir()} == names and not any("eight bits" in line for line in left)
    card = (tmp_path / "out/README.md").read_text()
    said = re.search(
        r"`onnx/encoder_text_int8.onnx` has its matrices in eight bits, ([\d.]+) MB in place of ([\d.]+)\. "
        r"Rows as they are stored, of (\d+) held-out clips: cosine ([\d.]+), at least ([\d.]+)\. "
        r"On (\d+) held-out clips UAR is ([\d.]+) before",
        card,
    )
    assert float(said[1]) < float(said[2])
    roles = tables.read("data/folds.parquet")
    ids = roles.filter(pl.col("role") == "test")["id"].to_list()
    store = Store("features/text.h5")
    there = [one for one in ids if store[one].status == Status.OK]
    assert int(said[6]) == len(ids) and int(said[3]) == len(there) < len(ids)
    # Of the graph in full precision the rows are those of the store; of the smaller one nearly.
    for name, least in (("encoder_text.onnx", 1 - 1e-6), ("encoder_text_int8.onnx", float(said[5]) - 1e-4)):
        stream = corpus.streams["text"]
        found = eight_bits.encode("text", stream, graphs.open_session(folder / name), there, "data/manifest.parquet")
        near = [eight_bits.compare(found[one].values, store[one].values) for one in there]
        assert list(found) == there and min(near) >= least
        np.testing.assert_array_equal(found[there[0]].times, store[there[0]].times)
    assert float(said[4]) == pytest.approx(np.mean(near), abs=1e-4) and min(near) < 1 - 1e-6


SOUND = SMALL | {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
CLIP = SMALL | {"patch_size": 16, "image_size": 32, "projection_dim": 16}
STREAMS = {
    "hubert": {"modality": "audio", "source": "data/audio.h5", "architecture": SOUND, "options": {"chunk": 0.2}, "layer": "all"},
    "clip": {"modality": "video", "source": "data/frames.h5", "architecture": CLIP},
    "clip, a layer": {
        "modality": "video",
        "source": "data/frames.h5",
        "architecture": CLIP,
        "layer": 1,
        "options": {"readout": "mean"},
    },
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_graph_answers_for_the_network(tmp_path, name):
    """Of several clips at once, of other lengths and in pieces."""
    family = name.partition(",")[0]
    stream = Stream.model_validate(STREAMS[name] | {"encoder": family, "weights": "random:0"})
    towers.write_tower(name, stream, tmp_path / "plain.onnx")
    assert graphs.write_eight_bits(tmp_path / "plain.onnx", tmp_path / "small.onnx")
    rng = np.random.default_rng(0)
    if family == "hubert":
        waves = [rng.normal(size=size).astype(np.float32) for size in (3000, 9000)]
        batch = [Prepared({"waveform": wave}, np.zeros((1, 2), np.float32)) for wave in waves]
    else:
        pictures = [rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8) for count in (2, 5)]
        batch = [Prepared({"pixels": one}, np.zeros((len(one), 2), np.float32)) for one in pictures]
    encoder = registry.build(stream).load(device="cpu")
    with torch.inference_mode():
        wanted = [rows.numpy() for rows in encoder.encode(batch)]
        for file, least in (("plain.onnx", 1 - 1e-6), ("small.onnx", 0.95)):
            answering = registry.build(stream).load(device="cpu")
            towers.find_kind(answering)(answering).answer_by(graphs.open_session(tmp_path / file))
            found = [rows.numpy() for rows in answering.encode(batch)]
            assert [one.shape for one in found] == [one.shape for one in wanted]
            near = [eight_bits.compare(a, b) for a, b in zip(found, wanted, strict=True)]
            assert min(near) >= least and (file == "plain.onnx" or max(near) < 1)


def test_an_encoder_of_convolutions_is_left_as_it_is(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graphs.trace(network.eval(), (torch.zeros(1, 3, 8, 8),), str(tmp_path / "encoder_video.onnx"), opset_version=graphs.OPSET)
    stream = Stream.model_validate(STREAMS["clip"] | {"encoder": "clip", "weights": "random:0"})
    said, left = eight_bits.shrink_towers(None, {"video": stream, "text": stream}, tmp_path, 0, tmp_path, tmp_path)
    assert said == [] and [path.name for path in tmp_path.iterdir()] == ["encoder_video.onnx"]
    assert left == ["stream video: its encoder is of convolutions, which stay as they are: no eight bits."]

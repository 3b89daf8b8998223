"""Encoders as ONNX: the same rows as from the encoder, at any length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.export import graphs, towers
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Prepared
from pipeline.params import Stream

pytest.importorskip("onnx", reason="onnx is not installed (requirements-export.txt)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-export.txt)")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WAVES = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
CLIP = SMALL | {"patch_size": 16, "image_size": 32, "projection_dim": 16}
WORDS = SMALL | {"vocab_size": 512, "max_position_embeddings": 64}


def stream(modality, encoder, architecture, **fields):
    source = {"video": "data/frames.h5", "audio": "data/audio.h5", "text": "data/manifest.parquet"}[modality]
    given = {"modality": modality, "source": source, "encoder": encoder, "weights": "random:0", "architecture": architecture}
    return Stream.model_validate(given | fields)


STREAMS = {
    "clip": stream("video", "clip", CLIP),
    "clip, a layer inside": stream("video", "clip", CLIP, layer=1, options={"readout": "mean"}),
    "bert": stream("text", "text", WORDS),
    "bert, all layers": stream("text", "text", WORDS, layer="all"),
    "hubert": stream("audio", "hubert", SMALL | WAVES),
    "hubert, a layer inside": stream("audio", "hubert", SMALL | WAVES, layer=1),
}


def prepare(name, encoder):
    """Two inputs as the encoder takes them, and as the graph does; of lengths it was not traced at."""
    rng = np.random.default_rng(0)
    for length in (3, 6):
        if name.startswith("clip"):
            pixels = rng.integers(0, 256, (length, 32, 32, 3)).astype(np.uint8)
            times = np.zeros((length, 2), np.float32)

            yield Prepared({"pixels": pixels}, times), {"pixels": encoder.images.normalise(torch.from_numpy(pixels))}
        elif name.startswith("bert"):
            ids = rng.integers(5, 512, length)
            inputs = {"ids": ids, "types": np.zeros_like(ids), "rows": np.ones(length, bool)}
            graph = {"ids": torch.from_numpy(ids)[None], "mask": torch.ones(1, length, dtype=torch.int64)}
            yield Prepared(inputs, np.zeros((length, 2), np.float32)), graph
        else:
            wave = rng.normal(size=1000 * length + 77).astype(np.float32)
            yield Prepared({"waveform": wave}, np.zeros((1, 2), np.float32)), {"waveform": torch.from_numpy(wave)[None]}


@pytest.mark.parametrize("name", STREAMS)
def test_a_graph_gives_the_rows_of_the_encoder(tmp_path, name):
    assert towers.write_tower(name, STREAMS[name], tmp_path / "encoder.onnx") <= graphs.PARITY
    encoder, session = registry.build(STREAMS[name]).load(device="cpu"), graphs.open_session(tmp_path / "encoder.onnx")
    for item, given in prepare(name, encoder):
        wanted = encoder.encode([item])[0].detach().numpy()
        found = graphs.run_session(session, given)["rows"]
        found = found if name.startswith("clip") else found[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=graphs.PARITY)


def test_what_cannot_be_written_is_a_line_and_the_others_are(tmp_path):
    egemaps = Stream.model_validate({"modality": "audio", "source": "data/audio.h5", "encoder": "logmel", "weights": "none"})
    said, left = towers.write_towers({"sound": egemaps, "text": STREAMS["bert"]}, tmp_path)
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["encoder_text.onnx"]
    assert "`onnx/encoder_text.onnx` is the encoder of `text`" in said[0] and len(said) == 1
    assert left == ["stream sound: encoders of family logmel are not written as ONNX."]
    with pytest.raises(UserError, match="an encoder of bfloat16 is not written"):
        towers.write_tower("text", STREAMS["bert"].model_copy(update={"dtype": "bfloat16"}), tmp_path / "x.onnx")

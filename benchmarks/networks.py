"""Encoders of their published sizes, with seeded weights, and the same ones small."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.params import Stream

from . import corpus, invariance

#: Whisper-large-v3. Its decoder is not loaded; the stand-in has one of two layers all the same.
WHISPER_LARGE = {
    "num_mel_bins": 128,
    "max_source_positions": 1500,
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_layers": 2,
    "decoder_attention_heads": 20,
    "decoder_ffn_dim": 5120,
}
#: HuBERT-base and VideoMAE-base are what their libraries make without being told otherwise.
DEFAULT: dict[str, object] = {}
TINY_VIDEO = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
}
TINY_EVA = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 14}


@dataclass(frozen=True)
class Network:
    """One encoder.

    Attributes:
        architecture, small: of the published size, and of one for a test.
        images: its inputs are single pictures, so that layout and compilation matter.
        nvjpeg: it may read JPEGs on the GPU.
        options, small_options: of the stream.
    """

    title: str
    encoder: str
    modality: str
    architecture: dict
    small: dict
    images: bool = False
    nvjpeg: bool = False
    options: dict = field(default_factory=dict)
    small_options: dict = field(default_factory=dict)

    def stream(self, source: Path, dtype: str, *, small: bool, **options: object) -> Stream:
        """The stream that reads the media store `source` with it."""
        return corpus.stream(
            {
                "modality": self.modality,
                "source": str(source),
                "encoder": self.encoder,
                "weights": "random:0",
                "dtype": dtype,
                "architecture": self.small if small else self.architecture,
                "options": self.options | (self.small_options if small else {}) | options,
            }
        )


NETWORKS = (
    Network("CLIP ViT-B/32", "clip", "video", corpus.VIT_B32, corpus.TINY_VIT, images=True, nvjpeg=True),
    Network("CLIP ViT-L/14", "clip", "video", corpus.VIT_L14, corpus.TINY_VIT, images=True, nvjpeg=True),
    Network("HuBERT-base", "hubert", "audio", DEFAULT, invariance.SPEECH),
    Network("Whisper-large", "whisper", "audio", WHISPER_LARGE, invariance.WHISPER, options={"padding": "exact"}),
    Network("VideoMAE-base", "videomae", "video", DEFAULT, TINY_VIDEO),
    Network(
        "EVA-CLIP ViT-g/14, 448 px",
        "eva",
        "video",
        DEFAULT,
        TINY_EVA,
        images=True,
        options={"frames": "middle"},
        small_options={"size": 112},
    ),
)

"""Speech transformers over raw waveform: HuBERT (also mHuBERT, Chinese-HuBERT), wav2vec 2.0, WavLM, data2vec-audio.

One batch holds clips of different lengths and still gives every clip what it gives alone. Two parts
of these models look across time in a way an attention mask does not reach: the GroupNorm of the
first convolution (`feat_extract_norm: group`; mean-pooled cosine 0.958 when padded) and the stacked
positional convolutions of data2vec. Both run here on each clip's true length (`Unpadded`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders import outputs, pooling, transfer
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.storage import memo

from . import sound

RATE = 16000
#: `model_type` of a configuration → names of the transformers model and configuration classes.
MODELS = {
    "hubert": ("HubertModel", "HubertConfig"),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config"),
    "wavlm": ("WavLMModel", "WavLMConfig"),
    "data2vec-audio": ("Data2VecAudioModel", "Data2VecAudioConfig"),
}
#: Parts of published checkpoints that are no part of the encoder: CTC and pre-training heads.
HEADS = (
    "lm_head",
    "classifier",
    "projector",
    "quantizer",
    "project_hid",
    "project_q",
    "final_proj",
    "label_embs",
    "masked_spec_embed",
)


@dataclass(frozen=True)
class Prepare:
    """Clip → one array `waveform` (S,) float32."""

    normalise: bool
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    chunk: float | None = None

    def __call__(self, clip: Clip) -> Prepared:
        samples = sound.waveform(clip, RATE)
        duration = len(samples) / RATE
        if self.normalise:
            samples = sound.normalised(samples)
        if (short := receptive(self.kernels, self.strides) - len(samples)) > 0:
            samples = np.pad(samples, (0, short))
        step, times, position = float(np.prod(self.strides)) / RATE, [], 0.0
        for piece in pieces(len(samples), self.chunk, receptive(self.kernels, self.strides)):
            count = frames(piece, self.kernels, self.strides)
            times.append(position + pooling.frame_times(count, 1 / step, piece / RATE))
            position += piece / RATE
        slots = np.minimum(np.concatenate(times), duration).astype(np.float32)
        return Prepared({"waveform": samples}, slots, cost=duration)


def frames(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Frames the convolutional front end gives for `samples`: 49 for one second of 16 kHz."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def receptive(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """The least number of samples that gives a frame."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def pieces(samples: int, chunk: float | None, least: int) -> list[int]:
    """Lengths of the pieces a waveform is encoded in; a rest too short for a frame joins its neighbour."""
    if not chunk:
        return [samples]
    size = max(least, round(chunk * RATE))
    lengths = [size] * (samples // size) + ([samples % size] if samples % size else [])
    if len(lengths) > 1 and lengths[-1] < least:
        lengths[-2:] = [lengths[-2] + lengths[-1]]
    return lengths


def load(stream: Stream, prepare: Prepare, kind: str, device: str = "cpu") -> Callable:
    """The network on `device` → forward."""
    import torch
    import transformers

    from pipeline.weights import pretrained

    from .unpadded import Unpadded

    model_class, config_class = (getattr(transformers, name) for name in MODELS[kind])
    architecture = {key: value for key, value in stream.architecture.items() if key != "model_type"}
    model = pretrained.load(
        model_class,
        stream.weights,
        architecture=architecture,
        config_class=config_class,
        dropped=HEADS,
        optional=("masked_spec_embed",),
        dtype=stream.dtype,
        attention=None if kind == "wavlm" else "sdpa",
    ).to(device)
    kernels, strides = prepare.kernels, prepare.strides
    norm = position = None
    if getattr(model.config, "feat_extract_norm", "layer") == "group":
        first = model.feature_extractor.conv_layers[0]
        norm = first.layer_norm = Unpadded(first.layer_norm, 2)
    if kind == "data2vec-audio":
        position = model.encoder.pos_conv_embed = Unpadded(model.encoder.pos_conv_embed, 1)

    def encode(waves: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes = [len(wave) for wave in waves]
        lengths = [frames(size, kernels, strides) for size in sizes]
        ragged = len(set(sizes)) > 1
        if norm is not None:
            norm.lengths = [frames(size, kernels[:1], strides[:1]) for size in sizes] if ragged else None
        if position is not None:
            position.lengths = lengths if ragged else None
        batch = transfer.to_device(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), device).to(model.dtype)
        mask = torch.arange(batch.shape[1], device=device) < torch.tensor(sizes, device=device)[:, None]
        with warnings.catch_warnings():
            # WavLM hands torch a boolean padding mask beside a float position bias; torch adds them rightly.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            output = model(batch, attention_mask=mask.long() if ragged else None, output_hidden_states=stream.layer != -1)
        return pooling.cut(outputs.selected(output, stream.layer), lengths)

    @torch.inference_mode()
    def forward(batch: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        waves, counts = [], []
        for item in batch:
            wave = torch.from_numpy(item.inputs["waveform"])
            parts = torch.split(wave, pieces(len(wave), prepare.chunk, receptive(kernels, strides)))
            waves.extend(parts)
            counts.append(len(parts))
        rows = iter(encode(waves))
        return [
            pooling.reduce(torch.cat([next(rows) for _ in range(count)]), item.times, pooling=stream.pooling, rate=stream.rate)
            for item, count in zip(batch, counts, strict=True)
        ]

    return forward


def build(stream: Stream) -> Extractor:
    """The extractor of one stream.

    Raises:
        WeightsError: absent weights, another architecture, a front end that does not say how its
            waveform is normalised or that wants another rate than 16 kHz.
        ParamsError: a layer that is not there, an architecture key that is not known.
    """
    options = FAMILY.options | stream.options
    source = weights.parse(stream.weights)
    if source.random:
        kind = stream.architecture.get("model_type", "hubert")
        _known(source, kind)
        config = configured(kind, {key: value for key, value in stream.architecture.items() if key != "model_type"}, {})
        normalise = True
    else:
        folder = weights.locate(source)
        config = weights.config(folder)
        kind = str(config.get("model_type"))
        _known(source, kind)
        config = configured(kind, {}, config)
        normalise = _normalises(source, sound.front(folder))
    if options["normalise"] is not None:
        normalise = bool(options["normalise"])
    pooling.check_layer(stream.layer, config["num_hidden_layers"])
    prepare = Prepare(normalise, tuple(config["conv_kernel"]), tuple(config["conv_stride"]), options["chunk"])
    identity = {
        "family": FAMILY.name,
        "version": 1,
        "model": kind,
        "dtype": stream.dtype,
        **pooling.settings(stream),
        "weights": weights.identity(source, architecture=stream.architecture),
        "preprocessing": {"rate": RATE, "normalise": normalise, "chunk": options["chunk"]},
    }
    return Extractor(identity, prepare, partial(load, stream, prepare, kind), budget=60.0)


def configured(kind: str, architecture: dict, says: dict) -> dict:
    """`num_hidden_layers`, `conv_kernel` and `conv_stride`: as a checkpoint's config.json says, else the library's.

    Raises:
        ParamsError: the architecture of a stand-in holds an unknown key.
    """
    keys = ("num_hidden_layers", "conv_kernel", "conv_stride")

    def ask() -> dict:
        import transformers

        from pipeline.weights import pretrained

        config = pretrained.configuration(getattr(transformers, MODELS[kind][1]), architecture).to_dict()
        return {key: config[key] for key in keys}

    if says.keys() >= set(keys):
        return says
    return memo.ask_library("speech configuration", ask, libraries=("transformers",), about=[kind, architecture]) | says


def _known(source: weights.Source, kind: str) -> None:
    if kind not in MODELS:
        raise WeightsError(
            f"{source} is a {kind!r} model, this family reads {', '.join(MODELS)}; choose the family that fits it."
        )


def _normalises(source: weights.Source, front: dict) -> bool:
    if not isinstance(front.get("do_normalize"), bool):
        raise WeightsError(
            f"{source} does not say whether waveforms are normalised (do_normalize in "
            "preprocessor_config.json); add the file or set options.normalise."
        )
    if front.get("sampling_rate", RATE) != RATE:
        raise WeightsError(f"{source} wants {front['sampling_rate']} Hz; this family encodes {RATE} Hz.")
    return front["do_normalize"]


FAMILY = Family(
    name="hubert",
    title="Speech transformer over raw waveform (HuBERT, wav2vec 2.0, WavLM, data2vec-audio)",
    modalities=("audio",),
    sources=("hf", "local", "package", "random"),
    build=build,
    # normalise: null takes it from the checkpoint. chunk: seconds encoded at a time, null = the whole clip.
    options={"normalise": None, "chunk": None},
)

"""Speech transformers over raw waveform: HuBERT (also mHuBERT, Chinese-HuBERT), wav2vec 2.0, WavLM, data2vec-audio.

One batch holds clips of different lengths and still gives every clip what it gives alone. Two parts
of these models look across time in a way an attention mask does not reach: the GroupNorm of the
first convolution (`feat_extract_norm: group`; mean-pooled cosine 0.958 when padded) and the stacked
positional convolutions of data2vec. Both run here on each clip's true length (`Unpadded`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders import outputs, pooling, transfer
from pipeline.features.encoders.encoder import Layered
from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Flag, Group, Positive
from pipeline.params.features import Layer
from pipeline.storage import memo

from . import sound
from .waveforms import RATE, Prepare, count_frames, receptive_field, split_lengths

if TYPE_CHECKING:
    import torch

#: `model_type` of a configuration → names of the transformers model and configuration classes.
MODELS = {
    "hubert": ("HubertModel", "HubertConfig"),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config"),
    "wavlm": ("WavLMModel", "WavLMConfig"),
    "data2vec-audio": ("Data2VecAudioModel", "Data2VecAudioConfig"),
}
#: Beside an encoder that was saved bare: CTC, classification and pre-training heads.
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
    "layer_weights",
)


class SpeechEncoder(Layered):
    """A speech transformer of transformers; each clip is encoded in pieces of at most `prepare.chunk` seconds.

    Args:
        network: one of `MODELS`.
        prepare: kernels, strides and pieces.
        layers: as in `Stream.layer`, read in one pass.
    """

    def __init__(self, network: Any, prepare: Prepare, layers: tuple[Layer, ...], device: str) -> None:
        from .unpadded import Unpadded

        self.network, self.layers, self.device = network, layers, device
        self.kernels, self.strides, self.chunk = prepare.kernels, prepare.strides, prepare.chunk
        self._norm = self._position = None
        if getattr(network.config, "feat_extract_norm", "layer") == "group":
            first = network.feature_extractor.conv_layers[0]
            self._norm = first.layer_norm = Unpadded(first.layer_norm, 2)
        if network.config.model_type == "data2vec-audio":
            self._position = network.encoder.pos_conv_embed = Unpadded(network.encoder.pos_conv_embed, 1)

    def encode_layers(self, batch: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """Per layer (T, D) or (T, L, D) of each clip."""
        import torch

        pieces: list[torch.Tensor] = []
        counts = []
        for item in batch:
            wave = torch.from_numpy(item.inputs["waveform"])
            parts = torch.split(wave, split_lengths(len(wave), self.chunk, receptive_field(self.kernels, self.strides)))
            pieces.extend(parts)
            counts.append(len(parts))
        each = map(iter, self._encode_pieces(pieces))
        return [[torch.cat([next(rows) for _ in range(count)]) for count in counts] for rows in each]

    def _encode_pieces(self, waves: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        import torch

        sizes = [len(wave) for wave in waves]
        lengths = [count_frames(size, self.kernels, self.strides) for size in sizes]
        ragged = len(set(sizes)) > 1
        if self._norm is not None:
            self._norm.lengths = [count_frames(n, self.kernels[:1], self.strides[:1]) for n in sizes] if ragged else None
        if self._position is not None:
            self._position.lengths = lengths if ragged else None
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        batch = transfer.to_device(padded, self.device).to(self.network.dtype)
        mask = torch.arange(batch.shape[1], device=self.device) < torch.tensor(sizes, device=self.device)[:, None]
        with warnings.catch_warnings():
            # WavLM hands torch a boolean padding mask beside a float position bias; torch adds them rightly.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            hidden = outputs.needs_hidden(self.layers)
            output = self.network(batch, attention_mask=mask.long() if ragged else None, output_hidden_states=hidden)
        return [pooling.cut(states, lengths) for states in outputs.select_layers(output, self.layers)]


def load(
    stream: Stream, prepare: Prepare, kind: str, device: str = "cpu", layers: tuple[Layer, ...] | None = None
) -> SpeechEncoder:
    """The network on `device`; see `Extractor.load`."""
    import transformers

    from pipeline.weights import pretrained

    model_class, config_class = (getattr(transformers, name) for name in MODELS[kind])
    architecture = {key: value for key, value in stream.architecture.items() if key != "model_type"}
    network = pretrained.load(
        model_class,
        stream.weights,
        architecture=architecture,
        config_class=config_class,
        dropped=HEADS,
        optional=("masked_spec_embed",),
        dtype=stream.dtype,
        attention=None if kind == "wavlm" else "sdpa",
    ).to(device)
    return SpeechEncoder(network, prepare, layers or (stream.layer,), device)


class Hubert(Family):
    """Speech transformers; see the module."""

    title = "Speech transformer over raw waveform (HuBERT, wav2vec 2.0, WavLM, data2vec-audio)"
    modalities = ("audio",)
    sources = ("hf", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        #: Zero mean and unit variance per clip; null takes it from the checkpoint.
        normalise: Flag | None = None
        #: Seconds encoded at a time, null = the whole clip.
        chunk: Positive | None = None

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights, another architecture, a front end that does not say how its
                waveform is normalised or that wants another rate than 16 kHz.
            ParamsError: a layer that is not there, an architecture key that is not known.
        """
        source = weights.parse(stream.weights)
        normalise = True
        if source.random:
            kind = stream.architecture.get("model_type", "hubert")
            _expect_known(source, kind)
            sizes = {key: value for key, value in stream.architecture.items() if key != "model_type"}
            config = read_configuration(kind, sizes, {})
        else:
            folder = weights.locate(source)
            config = weights.config(folder)
            kind = str(config.get("model_type"))
            _expect_known(source, kind)
            config = read_configuration(kind, {}, config)
            normalise = _normalises(source, sound.front(folder))
        if options.normalise is not None:
            normalise = options.normalise
        pooling.check_layer(stream.layer, config["num_hidden_layers"])
        prepare = Prepare(normalise, tuple(config["conv_kernel"]), tuple(config["conv_stride"]), options.chunk)
        identity = {
            "model": kind,
            "weights": weights.identity(source, architecture=stream.architecture),
            "preprocessing": {"rate": RATE, "normalise": normalise, "chunk": options.chunk},
        }
        return Extractor(identity, prepare, partial(load, stream, prepare, kind), budget=60.0)


def read_configuration(kind: str, architecture: dict, says: dict) -> dict:
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


def _expect_known(source: weights.Source, kind: str) -> None:
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

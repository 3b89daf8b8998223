"""The encoder of Whisper: log-mel spectrogram to 50 rows per second.

`padding: full` pads every clip to the 30 s the model was trained on and keeps the rows of the clip.
`padding: exact` encodes the clip's own length with the first position embeddings: eight times
faster on clips of 3 to 4 s (tiny.en, one processor core). The two differ in the features, because in
`full` the clip also attends to the silence after it (cosine 0.995 on RAVDESS), so they are two
identities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders import pooling, transfer
from pipeline.features.encoders.encoder import Layered
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Group
from pipeline.params.features import Layer
from pipeline.storage import memo

from . import mel, sound

if TYPE_CHECKING:
    import torch

RATE = 16000
STRIDE = 2  # mel frames per row, by the second convolution


@dataclass(frozen=True)
class Front:
    """The spectrogram a checkpoint wants: bins, window and hop in samples, mel frames of a whole piece."""

    bins: int
    size: int
    hop: int
    frames: int
    bank: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class Prepare:
    """Clip → `mel` (bins, F) float32, pieces of at most 30 s side by side."""

    front: Front
    padding: str

    def __call__(self, clip: Clip) -> Prepared:
        samples = sound.waveform(clip, RATE)
        duration, step = len(samples) / RATE, self.front.hop * STRIDE
        pieces, rows = [], 0
        for start in range(0, len(samples), self.front.frames * self.front.hop):
            piece = samples[start : start + self.front.frames * self.front.hop]
            count = -(-len(piece) // step)
            rows += count
            frames = self.front.frames if self.padding == "full" else count * STRIDE
            # Silence past the last window, so that a piece ends as it would inside 30 s.
            silent = frames * self.front.hop - len(piece) + self.front.size
            pieces.append(mel.whisper(np.pad(piece, (0, silent)), frames, self.front.size, self.front.hop, self.front.bank))
        spectrum = np.concatenate(pieces, 1)
        times = pooling.frame_times(rows, RATE / step, duration)
        return Prepared({"mel": spectrum}, times, cost=spectrum.shape[1] * self.front.hop / RATE)


class WhisperEncoder(Layered):
    """Whisper's encoder over pieces of at most `whole` mel frames."""

    def __init__(self, network: Any, whole: int, layers: tuple[Layer, ...], device: str) -> None:
        self.network, self.whole, self.layers, self.device = network, whole, layers, device

    def encode_layers(self, batch: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """Per layer (T, D) or (T, L, D) of each clip, without the rows of what `padding: full` puts after it."""
        import torch

        pieces: list[torch.Tensor] = []
        counts = []
        for item in batch:
            parts = torch.split(torch.from_numpy(item.inputs["mel"]), self.whole, 1)
            pieces.extend(parts)
            counts.append(len(parts))
        return [
            [torch.cat([next(rows) for _ in range(count)])[: len(item.times)] for item, count in zip(batch, counts, strict=True)]
            for rows in map(iter, self._encode_pieces(pieces))
        ]

    def _encode_pieces(self, pieces: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        import torch
        from torch.nn.functional import gelu

        network, lengths = self.network, [piece.shape[1] for piece in pieces]
        padded = torch.nn.utils.rnn.pad_sequence([piece.T for piece in pieces], batch_first=True)
        batch = transfer.to_device(padded.transpose(1, 2), self.device).to(network.dtype)
        rows, mask = [length // STRIDE for length in lengths], None
        hidden = gelu(network.conv1(batch))
        if len(set(lengths)) > 1:
            inside = torch.arange(batch.shape[2], device=self.device) < torch.tensor(lengths, device=self.device)[:, None]
            # Alone, a clip's second convolution sees zeros past its end; the bias of the first would leak in.
            hidden = hidden * inside[:, None]
            mask = inside[:, None, None, ::STRIDE]
        hidden = gelu(network.conv2(hidden)).transpose(1, 2)
        hidden = hidden + network.embed_positions.weight[: hidden.shape[1]]
        states = [hidden]
        for layer in network.layers:
            states.append(layer(states[-1], mask))
        states[-1] = network.layer_norm(states[-1])
        return [pooling.cut(pooling.select(states, layer), rows) for layer in self.layers]


def load(stream: Stream, prepare: Prepare, device: str = "cpu", layers: tuple[Layer, ...] | None = None) -> WhisperEncoder:
    """The network on `device`; see `Extractor.load`."""
    network = load_network(stream).to(device)
    return WhisperEncoder(network, prepare.front.frames, layers or (stream.layer,), device)


def load_network(stream: Stream) -> Any:
    """The network with its weights; of a stand-in, and of a checkpoint that is not as the published ones are, the library's.

    Raises:
        WeightsError: see `pretrained.load`.
    """
    from . import whisper_network

    source = weights.parse(stream.weights)
    if not source.random:
        folder = weights.locate(source)
        config = weights.config(folder)
        if whisper_network.is_known(config) and folder.is_dir():
            return whisper_network.load(folder, config, source, stream.dtype)
    from transformers import WhisperConfig
    from transformers.models.whisper import modeling_whisper

    from pipeline.weights import pretrained

    kind = modeling_whisper.WhisperEncoder
    return pretrained.load(kind, source, architecture=stream.architecture, config_class=WhisperConfig, dtype=stream.dtype)


class Whisper(Family):
    """Whisper's encoder; see the module."""

    title = "Whisper encoder"
    modalities = ("audio",)
    sources = ("hf", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        #: `exact` encodes the clip's own length, `full` pads to 30 s; two identities.
        padding: Literal["exact", "full"] = "exact"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights, another architecture, a front end that does not fit the encoder.
            ParamsError: a layer that is not there.
        """
        from pipeline.weights import pretrained

        source = weights.parse(stream.weights)
        if source.random:
            config = read_configuration(stream.architecture)
            says = {
                "feature_size": config["num_mel_bins"],
                "n_fft": 400,
                "hop_length": 160,
                "nb_max_frames": config["max_source_positions"] * STRIDE,
                "sampling_rate": RATE,
            }
        else:
            folder = weights.locate(source)
            config = weights.config(folder)
            pretrained.expect(source, config, ("whisper",))
            says = sound.front(folder)
        front = read_front(source, config, says)
        pooling.check_layer(stream.layer, config["encoder_layers"])
        prepare = Prepare(front, options.padding)
        identity = {
            "weights": weights.identity(source, architecture=stream.architecture),
            "preprocessing": {
                "rate": RATE,
                "bins": front.bins,
                "window": front.size,
                "hop": front.hop,
                "frames": front.frames,
                "padding": options.padding,
            },
        }
        return Extractor(identity, prepare, partial(load, stream, prepare), budget=120.0)


def read_configuration(architecture: dict) -> dict:
    """`num_mel_bins`, `max_source_positions` and `encoder_layers` of a stand-in.

    Raises:
        ParamsError: the architecture holds an unknown key.
    """

    def ask() -> dict:
        from transformers import WhisperConfig

        from pipeline.weights import pretrained

        config = pretrained.configuration(WhisperConfig, architecture)
        return {key: getattr(config, key) for key in ("num_mel_bins", "max_source_positions", "encoder_layers")}

    return memo.ask_library("whisper configuration", ask, libraries=("transformers",), about=architecture)


def read_front(source: weights.Source, config: dict, says: dict) -> Front:
    """The spectrogram a checkpoint wants: `says` is its preprocessor_config.json.

    Raises:
        WeightsError: it does not say, wants another rate than 16 kHz, or does not fit config.json.
    """
    if absent := [key for key in ("feature_size", "n_fft", "hop_length") if not isinstance(says.get(key), int)]:
        raise WeightsError(f"{source} does not say its {absent[0]} in preprocessor_config.json; fetch that file too.")
    if says.get("sampling_rate", RATE) != RATE:
        raise WeightsError(f"{source} wants {says['sampling_rate']} Hz; this family encodes {RATE} Hz.")
    frames = config["max_source_positions"] * STRIDE
    if says["feature_size"] != config["num_mel_bins"] or says.get("nb_max_frames", frames) != frames:
        raise WeightsError(
            f"{source}: preprocessor_config.json ({says['feature_size']} mel bins, "
            f"{says.get('nb_max_frames', frames)} frames) does not fit config.json "
            f"({config['num_mel_bins']}, {frames}); fetch both from one place."
        )
    bank = mel.bank(says["feature_size"], says["n_fft"], RATE, 0.0, 8000.0)
    return Front(says["feature_size"], says["n_fft"], says["hop_length"], frames, bank)

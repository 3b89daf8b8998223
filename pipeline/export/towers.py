"""Encoders as ONNX: prepared pixels, token ids or a waveform in, rows before any pooling out.

Of image towers, bidirectional text encoders and speech transformers. Others (computed features, language models, films through
3D networks) are left out with a line. What is written is run by onnxruntime at once, beside the encoder, at other lengths.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.features.encoders import outputs, registry
from pipeline.features.encoders.audio.hubert import SpeechEncoder
from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.text.language import LanguageEncoder
from pipeline.features.encoders.vision.framewise import FrameEncoder, LayeredFrameEncoder
from pipeline.params import Stream
from pipeline.params.features import Layer

from .graphs import OPSET, PARITY, open_session, run_session, trace

if TYPE_CHECKING:
    import onnxruntime


class Tower(nn.Module, ABC):
    """An encoder with plain tensors in and rows out.

    Attributes:
        axes: input → which of its axes are free, and their names. sizes: what is compared.
    """

    axes: Mapping[str, Mapping[int, str]]
    sizes: tuple[tuple[int, ...], ...]

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.network = encoder, encoder.network
        #: What is read, where layers are chosen.
        self.layers: Sequence[Layer] = getattr(encoder, "layers", ())

    @abstractmethod
    def answer_by(self, session: onnxruntime.InferenceSession) -> None:
        """Have the encoder give the rows of a graph of this kind in place of its network's; its layers are those of the graph."""

    @abstractmethod
    def draw(self, size: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Inputs of a size."""

    @abstractmethod
    def forward(self, *given: Tensor) -> Tensor:
        """The rows."""


class Pictures(Tower):
    """(N, 3, H, W) normalised pixels → (N, …), a row per frame."""

    axes = {"pixels": {0: "frames"}, "rows": {0: "frames"}}
    sizes = ((2,), (1,), (5,))

    def draw(self, size: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Noise."""
        height, width = self.encoder.images.crop
        return (torch.randn(*size, 3, height, width, generator=torch.Generator().manual_seed(size[0])),)

    def answer_by(self, session: onnxruntime.InferenceSession) -> None:
        """See `Tower.answer_by`."""
        several = isinstance(self.encoder, LayeredFrameEncoder)

        def read(pixels: Tensor) -> Tensor | list[Tensor]:
            rows = torch.from_numpy(run_session(session, {"pixels": pixels})["rows"])
            return [rows] if several else rows

        self.encoder.read = read

    def forward(self, *given: Tensor) -> Tensor:
        """See `FrameEncoder.read`."""
        found = self.encoder.read(*given)
        return found[0] if isinstance(found, list) else found  # a list has a member per layer


class Words(Tower):
    """(B, L) token ids and their mask → (B, L, …), a row per token."""

    axes = {name: {0: "clips", 1: "tokens"} for name in ("ids", "mask", "rows")}
    sizes = ((2, 7), (1, 3), (3, 12))

    def draw(self, size: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Ids of the vocabulary; the last text is shorter."""
        generator = torch.Generator().manual_seed(size[1])
        ids = torch.randint(5, self.network.config.vocab_size, size, generator=generator)
        mask = torch.ones_like(ids)
        mask[-1, size[1] - 1 :] = 0
        return ids, mask

    def answer_by(self, session: onnxruntime.InferenceSession) -> None:
        """See `Tower.answer_by`."""

        def ask(input_ids: Tensor, attention_mask: Tensor, **_: object) -> SimpleNamespace:
            rows = run_session(session, {"ids": input_ids, "mask": attention_mask.long()})["rows"]
            return SimpleNamespace(last_hidden_state=torch.from_numpy(rows))

        self.encoder.network, self.encoder.layers = ask, (-1,)

    def forward(self, *given: Tensor) -> Tensor:
        """Hidden states of the layer that the stream reads; zero where there is no token."""
        ids, mask = given
        found = self.network(input_ids=ids, attention_mask=mask, output_hidden_states=outputs.needs_hidden(self.layers))
        rows = outputs.select_layers(found, self.layers)[0]
        return rows * mask.reshape(*mask.shape, *[1] * (rows.dim() - 2))


class Waves(Tower):
    """(1, S) samples of one clip → (1, T, …)."""

    axes = {"waveform": {1: "samples"}, "rows": {1: "steps"}}
    sizes = ((8000,), (4000,), (12345,))

    def draw(self, size: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Noise."""
        return (torch.randn(1, *size, generator=torch.Generator().manual_seed(size[0])),)

    def answer_by(self, session: onnxruntime.InferenceSession) -> None:
        """See `Tower.answer_by`."""

        def ask(waves: Tensor, attention_mask: Tensor | None = None, **_: object) -> SimpleNamespace:
            lengths = [waves.shape[1]] * len(waves) if attention_mask is None else attention_mask.sum(1).tolist()
            each = [run_session(session, {"waveform": wave[None, :n]})["rows"][0] for wave, n in zip(waves, lengths, strict=True)]
            return SimpleNamespace(last_hidden_state=nn.utils.rnn.pad_sequence([*map(torch.from_numpy, each)], batch_first=True))

        ask.dtype = torch.float32  # type: ignore[attr-defined]
        self.encoder.network, self.encoder.layers = ask, (-1,)

    def forward(self, *given: Tensor) -> Tensor:
        """Hidden states of the layer that the stream reads."""
        found = self.network(*given, output_hidden_states=outputs.needs_hidden(self.layers))
        return outputs.select_layers(found, self.layers)[0]


#: Which encoders can be written.
KINDS: tuple[tuple[type[Encoder], type[Tower]], ...] = (
    (FrameEncoder, Pictures),
    (LanguageEncoder, Words),
    (SpeechEncoder, Waves),
)


def find_kind(encoder: Encoder) -> type[Tower] | None:
    """As what an encoder can be written; None = it is not."""
    if isinstance(encoder, LanguageEncoder) and encoder.causal:
        return None
    return next((tower for one, tower in KINDS if isinstance(encoder, one)), None)


def write_tower(name: str, stream: Stream, path: Path) -> float:
    """Write the encoder of a stream.

    Returns:
        The largest difference to the encoder, relative to its largest number.

    Raises:
        UserError: an encoder of a kind that is not written, or whose graph says something else.
        WeightsError: its weights are not there.
    """
    encoder = registry.build(stream).load(device="cpu")
    kind = find_kind(encoder)
    if kind is None:
        raise UserError(f"stream {name}: encoders of family {stream.encoder} are not written as ONNX.")
    if stream.dtype != "float32":
        raise UserError(f"stream {name}: an encoder of {stream.dtype} is not written as ONNX; set its dtype to float32.")
    tower = kind(encoder).eval()
    inputs = [one for one in tower.axes if one != "rows"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace(
            tower,
            tower.draw(tower.sizes[0]),
            str(path),
            input_names=inputs,
            output_names=["rows"],
            dynamic_axes={one: dict(axes) for one, axes in tower.axes.items()},
            opset_version=OPSET,
        )
    session, worst = open_session(path), 0.0
    for size in tower.sizes:
        given = tower.draw(size)
        with torch.inference_mode():
            wanted = tower(*given).numpy()
        found = run_session(session, dict(zip(inputs, given, strict=True)))["rows"]
        worst = max(worst, float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())))
    if not worst <= PARITY:
        path.unlink()
        raise UserError(f"stream {name}: as ONNX the encoder says something else (by {worst:.1e}); it is not written.")
    return worst


def write_towers(streams: Mapping[str, Stream], folder: Path) -> tuple[list[str], list[str]]:
    """`encoder_<stream>.onnx` of each stream that can be.

    Returns:
        Sentences for the card, and lines on what was left out.
    """
    said, left = [], []
    for name, stream in sorted(streams.items()):
        path = folder / f"encoder_{name}.onnx"
        try:
            worst = write_tower(name, stream, path)
        except UserError as error:
            path.unlink(missing_ok=True)
            left.append(str(error))
            continue
        said.append(
            f"`onnx/encoder_{name}.onnx` is the encoder of `{name}` before pooling, on input prepared as `preprocessing.json` "
            f"says; compared with it at three sizes: largest difference {worst:.1e} of its largest number."
        )
    return said, left

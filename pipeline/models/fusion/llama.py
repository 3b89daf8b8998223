"""A language model with adapters reads the streams as tokens of its own, and the words from where its lower layers left them.

    first token · words · <VIDEO> v </VIDEO> · <AUDIO> a </AUDIO> · <EMO>            order: words_first
    first token · <VIDEO> v </VIDEO> · <AUDIO> a </AUDIO> · <TEXT> words </TEXT> · <EMO>   order: words_last

The hidden state at <EMO> after the last layer is the fused vector; with `residual` the mean of the streams' own vectors is
added. What a clip lacks is left out with its markers, and takes no place. docs/llama.md says what this costs and gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Fused, Text, Tokens
from pipeline.models.language import Depth, LanguageModel, Lora, Projector, median_scale
from pipeline.models.quantise import Bits
from pipeline.models.readout import Readout
from pipeline.models.spec import LanguageSpec
from pipeline.params.base import Count, Flag

from .base import Fusion, FusionOptions, Streams, align, mean_tokens


class Llama(Fusion):
    """See the module. W is the language model's width.

    Args:
        language: which layers are held, and which stream has the states below them.
        state: their frozen weights.

    Attributes:
        markers: (M, 2, W) what opens and closes each stream; `emotion`: (W,) the row of <EMO>. Both times `scale`, that of
            the words at this layer, so that a rate of learning is relative to it.
        sink: (W,) the first token, for clips without words.
    """

    class Options(FusionOptions):
        """Of the fusion.

        weights, architecture: of a language model, where no stream is the trunk of one (a trunk brings its own).
        from_layer: how many layers lie below those held: a number, or a share of all; null = as the trunk has it, else 0.
        tokens: k of each stream. projector: how a stream becomes its tokens.
        lora: adapters; null = the layers stay as they are.
        dtype: of the frozen weights. quantise: they take 4 or 8 bits a number, where bitsandbytes is there.
        checkpointing: less memory for more time.
        residual: the mean of the streams' own vectors is added to what the language model says.
        """

        weights: str | None = None
        architecture: dict[str, Any] = {}
        from_layer: Depth | None = None
        tokens: Count = 1
        projector: Literal["linear", "mlp", "resampler"] = "linear"
        lora: Lora | None = Lora()
        dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        quantise: Bits | None = None
        checkpointing: Flag = False
        order: Literal["words_first", "words_last"] = "words_first"
        residual: Flag = False  # as models that were saved without it have it

    options: Options
    holds_language = True
    scale: Tensor
    sink: Tensor

    def __init__(
        self,
        streams: Mapping[str, int],
        width: int,
        heads: int,
        dropout: float,
        options: Options,
        language: LanguageSpec | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(streams, width, heads, dropout, options)
        if language is None or state is None:
            raise ParamsError("fusion llama holds a language model, and none was handed to it.")
        if options.l2 and options.projector == "resampler":
            raise ParamsError("fusion.options.l2 scales one vector of a stream, and a resampler makes none; set one of the two.")
        self.language = LanguageModel(
            language, state, options.lora, checkpointing=options.checkpointing, quantise=options.quantise
        )
        self.resampled = options.projector == "resampler"
        self.readable, self.width = width, self.language.width
        self.words = language.stream
        self.seen = tuple(name for name in self.streams if name != self.words)
        self.projectors = nn.ModuleDict(
            {name: Projector(width, self.width, options.tokens, options.projector, heads) for name in self.seen}
        )
        self.readouts = nn.ModuleDict()
        self.last = self.words is not None and options.order == "words_last"
        marked = len(self.seen) + self.last
        self.markers = nn.Parameter(torch.randn(marked, 2, self.width)) if marked else None
        self.emotion = nn.Parameter(torch.randn(self.width))
        self.norm = nn.LayerNorm(self.width)
        if options.residual:
            # The streams have the say at first, the language model as much of it as it earns (LayerScale; Touvron et al. 2021).
            nn.init.constant_(self.norm.weight, 0.1)
        # Words come as they are, without a projection of their own.
        self.beside = nn.Linear(self.width, self.width) if options.residual and self.words is not None else None
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("sink", torch.zeros(self.width))

    def choose_readout(self, name: str) -> None:
        """See `Fusion.choose_readout`."""
        if self.resampled:
            super().choose_readout(name)
        elif name != "mean":
            self.readouts.update({stream: Readout(self.readable, name == "attentive") for stream in self.seen})

    def observe(self, words: Tokens) -> None:
        """Take the first token and the scale of the others from clips that have words, before anything is learned."""
        here = words.present
        if bool(here.any()):
            self.sink.copy_(words.values[here, 0].mean(0))
            rest = words.mask.clone()
            rest[:, 0] = False
            self.scale.fill_(median_scale(words.values[rest]) if bool(rest.any()) else 1.0)

    def assemble(self, streams: Streams) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """States (B, T, W) and mask (B, T) that the language model goes on from, <EMO> last; and each stream's own vector."""
        some = next(iter(streams.values())).mask
        count, always = len(some), torch.ones(len(some), 1, dtype=torch.bool, device=some.device)
        vectors: dict[str, Tensor] = {}
        seen: list[tuple[Tensor, Tensor]] = []
        for place, name in enumerate(self.seen):
            tokens = streams[name]
            vector = self.readouts[name](tokens) if name in self.readouts else mean_tokens(tokens)
            vector = nn.functional.normalize(vector, dim=-1) if self.options.l2 else vector
            rows = self.projectors[name](tokens, vector)  # (B, k, W)
            vectors[name] = rows.mean(1)
            rows = torch.cat([self._mark(place, 0, count), rows, self._mark(place, 1, count)], 1) * self.scale
            seen.append((rows, tokens.present[:, None].expand(-1, rows.shape[1])))
        before: list[tuple[Tensor, Tensor]] = []
        said: list[tuple[Tensor, Tensor]] = []
        if self.words is not None:
            words = streams[self.words]
            first = torch.where(words.present[:, None], words.values[:, 0], self.sink)
            before = [(first[:, None], always)]
            rest = words.mask[:, 1:]
            values = words.values[:, 1:] * rest[..., None]
            said = [(values, rest)]
            mean = values.sum(1) / rest.sum(1, keepdim=True).clamp(min=1)
            mean = nn.functional.layer_norm(mean, (self.width,))
            vectors[self.words] = mean if self.beside is None else self.beside(mean)
            if self.last:
                here = words.present[:, None]
                opens, closes = (self._mark(len(self.seen), side, count) * self.scale for side in (0, 1))
                said = [(opens, here), *said, (closes, here)]
        end = (self.emotion * self.scale).expand(count, 1, -1)
        blocks = [*before, *(seen + said if self.last else said + seen), (end, always)]
        states = torch.cat([values for values, _ in blocks], 1)
        return states, torch.cat([mask for _, mask in blocks], 1), vectors

    def _mark(self, place: int, side: int, count: int) -> Tensor:
        assert self.markers is not None
        return self.markers[place, side].expand(count, 1, -1)

    def forward(self, streams: Streams, base: str | None = None, text: Text | None = None) -> Fused:
        """See `Fusion.forward`. An instant of the base stream is the clip's vector and what each stream has there."""
        kept = self.drop(streams)
        present = torch.stack([kept[name].present for name in self.streams], 1)  # (B, M)
        states, mask, vectors = self.assemble(kept)
        if mask.shape[1] > self.language.limit:
            raise ParamsError(
                f"fusion llama: {mask.shape[1]} tokens, and the language model takes {self.language.limit}; "
                "shorten the trunk's options.max_length."
            )
        vector = self.norm(self.language.read_last(states, mask))  # (B, W)
        parts = torch.stack([vectors[name] for name in self.streams], 1) * present[..., None]  # (B, M, W)
        if self.options.residual:
            vector = vector + parts.sum(1) / present.sum(1, keepdim=True).clamp(min=1)
        tokens = None
        if base is not None:
            instants = streams[base]
            nets: dict[str, Any] = dict(self.projectors.items())
            each = [net.project_each(align(kept[name], instants)) for name, net in nets.items()]
            here = [kept[name].present[:, None, None] for name in self.seen]
            values = sum((one * there for one, there in zip(each, here, strict=True)), vector[:, None])
            tokens = instants._replace(values=values * instants.mask[..., None])
        return Fused(vector, tokens, parts, present, None)

"""Causal language models over a dialogue prompt (GPT-2, LLaMA, SmolLM2, Qwen2 and the like).

The prompt holds the earlier turns (`options.turns` of them) and then the clip's own, oldest first,
each under its speaker's name; later turns never enter. A prompt longer than the model takes loses
its oldest tokens, so that the clip's own words are always there. `pooling: last` reads the last
token, which has seen everything; all others read the tokens of the clip's own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders.extractor import Clip, Extractor, Missing, Prepared, Turn
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Group
from pipeline.params.features import Layer, Sum
from pipeline.weights import layers as halves

from . import language, tokens

#: Part of the identity: another wording is another feature.
TURN = 'The speaker "{speaker}" says:\n###\n{text}\n###'
BETWEEN = "\n\n\n"
NOBODY = "unknown"


def write_prompt(clip: Clip, turns: int) -> tuple[str, int]:
    """The prompt, and the character its last utterance (the clip's own) starts at.

    Raises:
        Missing: the clip has no transcript.
    """
    own = tokens.transcript(clip)
    earlier = clip.context[-turns:] if turns else ()
    parts = [
        TURN.format(speaker=turn.speaker or NOBODY, text=turn.text.strip()) for turn in earlier if turn.text and turn.text.strip()
    ]
    before = BETWEEN.join([*parts, ""]) if parts else ""
    head, tail = TURN.format(speaker=clip.speaker or NOBODY, text="\0").split("\0")
    return before + head + own + tail, len(before + head)


@dataclass(frozen=True)
class Prepare:
    """Clip → `ids` (L,) int64 and `rows` (L,) bool: the tokens that become rows."""

    tokenizer: tokens.Words | tokens.Fast
    limit: int
    turns: int
    end: bool

    def __call__(self, clip: Clip) -> Prepared:
        text, start = write_prompt(clip, self.turns)
        length = len(tokens.transcript(clip))
        encoding = self.tokenizer.tail(text, self.limit)
        rows = encoding.own & (encoding.spans[:, 1] > start) & (encoding.spans[:, 0] < start + length)
        if self.end:
            rows[-1] = True
        if not rows.any():
            raise Missing("the transcript has no token")
        shares = ((encoding.spans - start) / length).clip(0, 1)
        times = (shares * tokens.seconds(clip))[rows].astype(np.float32)
        # Clips of one dialogue meet in a batch: the longest prompt begins with the others, as long as none has lost a turn.
        said = (*clip.context, Turn(clip.speaker, clip.text))[0]
        bucket = (said.speaker, said.text) if len(clip.context) < self.turns else None
        return Prepared({"ids": encoding.ids, "rows": rows}, times, bucket=bucket, cost=float(len(rows)))


def load(stream: Stream, kind: str, device: str = "cpu", layers: tuple[Layer, ...] | None = None) -> language.LanguageEncoder:
    """The network on `device`; see `Extractor.load`."""
    read = layers or (stream.layer,)
    network = drop_unread(language.load_network(stream, kind, classes, dropped=("lm_head", "score")), kind, read)
    return language.LanguageEncoder(network.to(device), read, device, causal=True, use_cache=False)


def drop_unread(network: Any, kind: str, layers: Sequence[Layer]) -> Any:
    """The network without the layers above the highest one that is read, which change nothing that is kept."""
    chosen: list[int] = []
    for layer in layers:
        each = layer.sum if isinstance(layer, Sum) else (layer,) if isinstance(layer, int) else layer
        if isinstance(each, str) or min(each) < 0 or kind not in halves.PARTS:
            return network
        chosen += each
    highest = max(1, *chosen)  # the embeddings alone are no network
    return halves.cut_above(network, highest) if highest < network.config.num_hidden_layers else network


def classes(source: object, kind: str) -> tuple[type, type]:
    """Model and configuration class of a `model_type`.

    Raises:
        WeightsError: it is no causal language model of the library.
    """
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    name = modeling_auto.MODEL_MAPPING_NAMES.get(kind)
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if isinstance(name, str) and causal and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        model_class, config_class = getattr(transformers, name), getattr(transformers, CONFIG_MAPPING_NAMES[kind])
        if not getattr(config_class(), "is_encoder_decoder", False):
            return model_class, config_class
    raise WeightsError(
        f"{source} is a {kind!r} model, this family reads causal language models such as gpt2 or llama; "
        "choose the family that fits it."
    )


class Dialogue(Family):
    """Causal language models over a dialogue; see the module."""

    title = "Causal language model over a dialogue prompt (GPT-2, LLaMA, SmolLM2)"
    modalities = ("text",)
    sources = ("hf", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        #: Earlier turns in the prompt.
        turns: language.Turns = 0
        #: Tokens; null = what the model takes.
        max_length: Count | None = None

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights or tokenizer, another architecture.
            ParamsError: a length out of range, a layer that is not there.
        """
        model = language.open_model(stream, "gpt2", classes)
        most = min(model.limit, model.config["max_position_embeddings"] or 10**6)
        limit = model.length(options.max_length, 8, most)
        prepare = Prepare(model.tokenizer, limit, options.turns, stream.pooling == "last" and stream.rate is None)
        identity = {
            "model": model.kind,
            "weights": weights.identity(model.source, architecture=stream.architecture, libraries=language.LIBRARIES),
            "preprocessing": {
                "tokenizer": model.tokenizer.digest,
                "max_length": limit,
                "turns": options.turns,
                "prompt": [TURN, BETWEEN, NOBODY],
            },
            "rows": {"end": prepare.end},
        }
        return Extractor(identity, prepare, partial(load, stream, model.kind), budget=4096.0, turns=options.turns)

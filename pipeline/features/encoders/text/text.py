"""Bidirectional text encoders of transformers (BERT, RoBERTa, MiniLM, MacBERT, DeBERTa, ModernBERT and the like).

`pooling: first` is the CLS vector, `mean` the sentence vector of sentence-transformers (markers
included), `none` one row per token of the transcript. With `options.turns` the given number of
earlier turns stands before the transcript; they are read, but only the transcript's tokens become rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders.extractor import Clip, Extractor, Missing, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Group
from pipeline.params.features import Layer

from . import language, tokens

#: Parts of published checkpoints that are no part of the encoder.
HEADS = (
    "cls",
    "lm_head",
    "classifier",
    "predictions",
    "generator",
    "discriminator",
    "vocab_",
    "mask_predictions",
    "sop_classifier",
    "qa_outputs",
    "head.",
    "decoder.",
    "embeddings.position_ids",
    "pooler",
)
#: Their positions count from padding_idx + 1, so that many of the position embeddings are never used.
SHIFTED = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "ibert")


@dataclass(frozen=True)
class Prepare:
    """Clip → `ids`, `types` (L,) int64 and `rows` (L,) bool: the tokens that become rows."""

    tokenizer: tokens.Words | tokens.Fast
    limit: int
    context: int
    special: bool

    def __call__(self, clip: Clip) -> Prepared:
        text = tokens.transcript(clip)
        before = " ".join(turn.text for turn in clip.context[-self.context :] if turn.text) if self.context else ""
        encoding = self.tokenizer(text, before or None, self.limit)
        if not encoding.own.any():
            raise Missing("the transcript has no token")
        rows = encoding.own | encoding.special if self.special else encoding.own
        times = encoding.times(len(text), tokens.seconds(clip))[rows]
        return Prepared({"ids": encoding.ids, "types": encoding.types, "rows": rows}, times, cost=float(len(rows)))


def load(stream: Stream, kind: str, device: str = "cpu", layers: tuple[Layer, ...] | None = None) -> language.LanguageEncoder:
    """The network on `device`; see `Extractor.load`."""
    network = language.load_network(stream, kind, classes, dropped=HEADS, optional=("pooler",)).to(device)
    typed = getattr(network.config, "type_vocab_size", 0) > 1
    read, padding = layers or (stream.layer,), network.config.pad_token_id or 0
    return language.LanguageEncoder(network, read, device, padding=padding, typed=typed)


def classes(source: object, kind: str) -> tuple[type, type]:
    """Model and configuration class of a `model_type`.

    Raises:
        WeightsError: it is no bidirectional text encoder of the library.
    """
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    name = modeling_auto.MODEL_MAPPING_NAMES.get(kind)
    if isinstance(name, str) and kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        model_class = getattr(transformers, name)
        config_class = getattr(transformers, CONFIG_MAPPING_NAMES[kind])
        if model_class.main_input_name == "input_ids" and not getattr(config_class(), "is_encoder_decoder", False):
            return model_class, config_class
    raise WeightsError(
        f"{source} is a {kind!r} model, this family reads bidirectional text encoders such as bert, "
        "roberta or deberta-v2; choose the family that fits it."
    )


class Text(Family):
    """Bidirectional text encoders; see the module."""

    title = "Bidirectional text encoder (BERT, RoBERTa, MiniLM, DeBERTa, ModernBERT)"
    modalities = ("text",)
    sources = ("hf", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        #: Tokens; null = what the model takes.
        max_length: Count | None = None
        #: Earlier turns read before the transcript.
        turns: language.Turns = 0
        #: Rows of [CLS] and [SEP]; auto drops them where rows are tokens or windows of time.
        special: Literal["auto", "keep", "drop"] = "auto"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights or tokenizer, another architecture.
            ParamsError: a length out of range, a layer that is not there.
        """
        model = language.open_model(stream, "bert", classes)
        positions = model.config["max_position_embeddings"] or 10**6
        if model.kind in SHIFTED:
            positions -= model.config["pad_token_id"] + 1
        limit = model.length(options.max_length, 3, min(model.limit, positions))
        # One row per token, or per window of time, is about the words; a vector of the text is [CLS] or takes it in.
        rowwise = stream.pooling == "none" or stream.rate is not None
        special = not rowwise if options.special == "auto" else options.special == "keep"
        prepare = Prepare(model.tokenizer, limit, options.turns, special)
        identity = {
            "model": model.kind,
            "weights": weights.identity(model.source, architecture=stream.architecture, libraries=language.LIBRARIES),
            "preprocessing": {
                "tokenizer": model.tokenizer.digest,
                "max_length": limit,
                "turns": options.turns,
            },
            "rows": {"special": special},
        }
        return Extractor(identity, prepare, partial(load, stream, model.kind), budget=4096.0, turns=options.turns)

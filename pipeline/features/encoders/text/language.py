"""What bidirectional encoders (`text`) and causal language models (`dialogue`) of transformers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import weights
from pipeline.errors import ParamsError
from pipeline.features.encoders import outputs, pooling
from pipeline.features.encoders.extractor import Prepared
from pipeline.params import Stream

from . import tokens

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "tokenizers")
#: (weights, `model_type`) → model and configuration class; raises WeightsError for a model of another sort.
Classes = Callable[[object, str], tuple[type, type]]


@dataclass(frozen=True)
class Opened:
    """A language model before its network is built.

    Attributes:
        source: where the weights are.
        kind: `model_type`.
        config: `tokens.CONFIGURED` keys of the configuration.
        tokenizer: the checkpoint's own; of a stand-in, hashed words.
        limit: most tokens the tokenizer says the model takes.
    """

    source: weights.Source
    kind: str
    config: dict
    tokenizer: tokens.Words | tokens.Fast
    limit: int

    def length(self, asked: int | None, least: int, most: int) -> int:
        """Tokens a text may have: `options.max_length` where it is set, else the `most` the model takes.

        Raises:
            ParamsError: `asked` is out of range.
        """
        if asked is None:
            return most
        if not least <= asked <= most:
            raise ParamsError(f"max_length {asked} is out of range; {self.source} takes {least} to {most} tokens.")
        return asked


def architecture(stream: Stream) -> dict:
    """The stand-in's configuration, without the name of its model."""
    return {key: value for key, value in stream.architecture.items() if key != "model_type"}


def opened(stream: Stream, usual: str, classes: Classes) -> Opened:
    """What a stream's weights say.

    Args:
        usual: `model_type` of a stand-in that does not name one.

    Raises:
        WeightsError: absent weights or tokenizer, another architecture.
        ParamsError: a layer or a number of turns that cannot be, a stand-in's architecture that does not fit.
    """
    source = weights.parse(stream.weights)
    if source.random:
        kind = stream.architecture.get("model_type", usual)
        config = tokens.configured(source, kind, architecture(stream), classes)
        tokenizer, limit = tokens.Words(config["vocab_size"]), 10**6
    else:
        folder = weights.locate(source)
        says = weights.config(folder)
        kind = str(says.get("model_type"))
        config = tokens.configured(source, kind, says, classes)
        tokenizer, limit = tokens.of_checkpoint(source, folder)
    if (turns := stream.options.get("turns", 0)) < 0:
        raise ParamsError(f"turns {turns} is a number of turns; write 0 or more.")
    pooling.check_layer(stream.layer, config["num_hidden_layers"])
    return Opened(source, kind, config, tokenizer, limit)


def network(stream: Stream, kind: str, classes: Classes, *, dropped: Sequence[str], optional: Sequence[str] = ()) -> Any:
    """The model with its weights, strictly loaded (`pretrained.load`)."""
    from pipeline.weights import pretrained

    model_class, config_class = classes(stream.weights, kind)
    return pretrained.load(
        model_class,
        stream.weights,
        architecture=architecture(stream),
        config_class=config_class,
        dropped=dropped,
        optional=optional,
        types=(kind,),
        dtype=stream.dtype,
        attention=None,
    )


def token_rows(
    states: torch.Tensor, mask: np.ndarray, batch: Sequence[Prepared], stream: Stream
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(B, L, D) states → rows of each clip: the tokens `prepare` marked in `rows`, pooled as the stream says."""
    import torch

    chosen = pooling.cut(states, mask.sum(1).tolist())
    return [
        outputs.pooled(values[torch.from_numpy(item.inputs["rows"])], item, stream)
        for values, item in zip(chosen, batch, strict=True)
    ]

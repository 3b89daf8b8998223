"""What bidirectional encoders (`text`) and causal language models (`dialogue`) of transformers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from pipeline import weights
from pipeline.errors import ParamsError
from pipeline.features.encoders import outputs, pooling, transfer
from pipeline.features.encoders.encoder import Layered
from pipeline.features.encoders.extractor import Prepared
from pipeline.params import Stream
from pipeline.params.base import Whole
from pipeline.params.features import Layer
from pipeline.storage import memo

from . import tokenizer_files, tokens

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "tokenizers")
#: What the families need to know of a configuration.
CONFIGURED = ("vocab_size", "max_position_embeddings", "num_hidden_layers", "pad_token_id")
#: How many earlier turns of the dialogue are read.
Turns = Annotated[Whole, Field(ge=0)]
#: (weights, `model_type`) → model and configuration class; raises WeightsError for a model of another sort.
Classes = Callable[[object, str], tuple[type, type]]


@dataclass(frozen=True)
class Opened:
    """A language model before its network is built.

    Attributes:
        source: where the weights are.
        kind: `model_type`.
        config: `CONFIGURED` keys of the configuration.
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


def read_configuration(source: weights.Source, kind: str, says: dict, classes: Classes) -> dict:
    """What a text model's configuration says, with the library's defaults for what `says` leaves out.

    Args:
        says: config.json of a checkpoint; the architecture of a stand-in, which is closed to unknown keys.
        classes: model and configuration class of a `model_type`; raises WeightsError for a wrong one.

    Raises:
        ParamsError: a stand-in's architecture does not fit.
    """

    def ask() -> dict:
        from pipeline.weights import pretrained

        kind_of = classes(source, kind)[1]
        config = pretrained.configuration(kind_of, says) if source.random else kind_of(**says)
        return {key: getattr(config, key, None) for key in CONFIGURED}

    # The family's module stands for what it accepts.
    about = [classes.__module__.rpartition(".")[2], kind, source.random, says]
    return memo.ask_library("text configuration", ask, libraries=("transformers",), about=about)


def open_model(stream: Stream, usual: str, classes: Classes) -> Opened:
    """What a stream's weights say.

    Args:
        usual: `model_type` of a stand-in that does not name one.

    Raises:
        WeightsError: absent weights or tokenizer, another architecture.
        ParamsError: a layer that cannot be, a stand-in's architecture that does not fit.
    """
    source = weights.parse(stream.weights)
    if source.random:
        kind = stream.architecture.get("model_type", usual)
        config = read_configuration(source, kind, architecture(stream), classes)
        tokenizer: tokens.Words | tokens.Fast = tokens.Words(config["vocab_size"])
        limit = 10**6
    else:
        folder = weights.locate(source)
        says = weights.config(folder)
        kind = str(says.get("model_type"))
        config = read_configuration(source, kind, says, classes)
        tokenizer, limit = tokenizer_files.read_tokenizer(source, folder)
    pooling.check_layer(stream.layer, config["num_hidden_layers"])
    return Opened(source, kind, config, tokenizer, limit)


def load_network(stream: Stream, kind: str, classes: Classes, *, dropped: Sequence[str], optional: Sequence[str] = ()) -> Any:
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


class LanguageEncoder(Layered):
    """A language model of transformers over `ids`; the tokens that `prepare` marked in `rows` become rows.

    Args:
        padding: token that fills shorter texts on the right, where the mask or a causal model's order hides it.
        typed: the network takes `types` too.
        causal: no token sees a later one, so that a text that another of the batch begins with is read off that one.
        arguments: others of the network, e.g. `use_cache: False`.
    """

    def __init__(
        self,
        network: Any,
        layers: tuple[Layer, ...],
        device: str,
        *,
        padding: int = 0,
        typed: bool = False,
        causal: bool = False,
        **arguments: object,
    ) -> None:
        self.network, self.layers, self.device = network, layers, device
        self.padding, self.typed, self.causal, self.arguments = padding, typed, causal, arguments

    def encode_layers(self, batch: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """Per layer (T, D) or (T, L, D) of each clip."""
        import torch

        texts = [item.inputs["ids"] for item in batch]
        run, carried = find_carriers(texts) if self.causal else (range(len(batch)), range(len(batch)))
        ids, mask = tokens.pad([texts[i] for i in run], self.padding)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.typed:
            inputs["token_type_ids"] = tokens.pad([batch[i].inputs["types"] for i in run], 0)[0]
        output = self.network(
            **{name: transfer.to_device(value, self.device) for name, value in inputs.items()},
            output_hidden_states=outputs.needs_hidden(self.layers),
            **self.arguments,
        )
        places = [i * ids.shape[1] + np.flatnonzero(item.inputs["rows"]) for i, item in zip(carried, batch, strict=True)]
        kept = transfer.to_device(np.concatenate(places), self.device)
        each = [states.flatten(0, 1)[kept] for states in outputs.select_layers(output, self.layers)]  # of (B · L, ...)
        return [list(torch.split(rows, [len(place) for place in places])) for rows in each]


def find_carriers(texts: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """Which of these texts to run, longest first, and for each the place there of one that begins with it.

    >>> find_carriers([np.array([1, 2]), np.array([1, 2, 3]), np.array([2])])
    ([1, 2], [0, 0, 1])
    """
    run: list[int] = []
    carried = [0] * len(texts)
    for i in sorted(range(len(texts)), key=lambda one: -len(texts[one])):
        found = (k for k, one in enumerate(run) if np.array_equal(texts[one][: len(texts[i])], texts[i]))
        carried[i] = next(found, len(run))
        if carried[i] == len(run):
            run.append(i)
    return run, carried

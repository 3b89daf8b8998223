"""The language model of a fusion: described for a specification, and its frozen layers read when a model is built."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipeline import weights
from pipeline.errors import ParamsError, StoreError, WeightsError
from pipeline.models.build import build_model
from pipeline.models.fusion.llama import Llama
from pipeline.models.model import Model
from pipeline.models.spec import LanguageSpec, ModelSpec
from pipeline.params import Stream
from pipeline.weights import layers

#: Where a depth is named in messages.
NAME = "fusion.options.from_layer"


def describe_language(options: Llama.Options, trunks: Mapping[str, dict], streams: Mapping[str, Stream]) -> LanguageSpec:
    """Which layers of which language model a fusion holds.

    Args:
        trunks: stream → `depth` and `base` of those that hold the states of a language model. streams: the parameters of all.

    Raises:
        ParamsError: several trunks, one of another depth, or no language model at all.
        WeightsError: its weights are not there, or are others than those the trunk was made with.
    """
    if len(trunks) > 1:
        raise ParamsError(f"fusion llama reads one trunk, and the streams {', '.join(trunks)} are; drop all but one.")
    if not trunks:
        if options.weights is None:
            raise ParamsError(
                "fusion llama needs a language model: add a stream that is the trunk of one "
                "(-S +stream@streams.lm=smollm2_trunk), or set fusion.options.weights."
            )
        address, architecture, depth = options.weights, options.architecture, float(options.from_layer or 0)
        config, below, count = layers.describe_above(address, architecture, depth, NAME)
        base = layers.name_base(weights.identity(address, architecture=architecture))
        return _specify(address, architecture, base, config, below, count, options, None)
    name, trunk = next(iter(trunks.items()))
    stream = streams[name]
    base = layers.name_base(weights.identity(stream.weights, architecture=stream.architecture))
    if base != trunk["base"]:
        raise WeightsError(f"stream {name} was made with other weights than {stream.weights} is now; run `dvc repro`.")
    config, below, count = layers.describe_above(stream.weights, stream.architecture, trunk["depth"], NAME)
    if options.from_layer is not None and layers.resolve_depth(float(options.from_layer), count, NAME) != below:
        raise ParamsError(
            f"{NAME} is {options.from_layer:g}, but stream {name} holds the states after layer {below}; "
            f"set streams.{name}.options.depth to the same, or leave {NAME} null."
        )
    return _specify(stream.weights, stream.architecture, base, config, below, count, options, name)


def _specify(
    address: str, architecture: dict, base: str, config: dict, below: int, count: int, options: Llama.Options, stream: str | None
) -> LanguageSpec:
    return LanguageSpec(
        weights=address,
        architecture=architecture,
        base=base,
        config=config,
        below=below,
        layers=count,
        dtype=options.dtype,
        stream=stream,
    )


def build(spec: ModelSpec) -> Model:
    """The model of a specification, with the frozen layers it holds.

    Raises:
        ParamsError: unknown part or option.
        WeightsError: the language model is not there. StoreError: it is another than the specification's.
    """
    language = spec.language
    if language is None:
        return build_model(spec)
    base = layers.name_base(weights.identity(language.weights, architecture=dict(language.architecture)))
    if base != language.base:
        raise StoreError(f"{language.weights} is not the language model that this model was trained with; fetch that one.")
    architecture = json.dumps(language.architecture, sort_keys=True)
    return build_model(spec, layers.read_above(language.weights, architecture, language.below, language.dtype))

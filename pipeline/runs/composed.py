"""A language model that reads films inside a prompt, opened from its settings, and what was loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.models.composed.model import Composed, make_projector
from pipeline.models.language import LanguageModel, Lora
from pipeline.models.quantise import Bits
from pipeline.models.spec import LanguageSpec
from pipeline.params.base import Flag, Group
from pipeline.weights import layers, minigpt, vocabulary


class Language(Group):
    """Which language model.

    lora: adapters, that the checkpoint of the projectors holds or that learn; null = none. dtype: of what is frozen.
    quantise: what is frozen takes fewer bits, where bitsandbytes is there. checkpointing: less memory for more time.
    """

    weights: str
    architecture: dict[str, Any] = {}
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lora: Lora | None = None
    quantise: Bits | None = None
    checkpointing: Flag = False


def open_composed(language: Language, projectors: str, streams: Sequence[str]) -> tuple[Composed, dict[str, Any]]:
    """The model in evaluation mode, and a report of what was loaded, with a hash of each part.

    Args:
        projectors: address of a published checkpoint; of `random:`, a stream's projector is made by `fit_projector`, once it
            is known how wide the stream is.

    Raises:
        WeightsError: weights are absent, or do not cover the projectors and adapters asked for.
    """
    address, says = language.weights, json.dumps(language.architecture, sort_keys=True)
    config, _, count = layers.describe_above(address, language.architecture, 0, "depth")
    base = weights.identity(address, architecture=language.architecture)
    spec = LanguageSpec(
        weights=address,
        architecture=language.architecture,
        base=layers.name_base(base),
        config=config,
        below=0,
        layers=count,
        dtype=language.dtype,
    )
    ends = vocabulary.read_vocabulary(address, says, language.dtype)
    state = layers.read_above(address, says, 0, language.dtype)
    report: dict[str, Any] = {"language": base | {"dtype": language.dtype, "layers": count}}
    if language.quantise is not None:
        report["language"]["quantise"] = language.quantise
    made = LanguageModel(spec, state, language.lora, checkpointing=language.checkpointing, quantise=language.quantise)
    source, own = weights.parse(projectors), {}
    if source.random:
        report["projectors"] = {"source": str(source), "random": True}
    else:
        found = minigpt.read(source, streams)
        minigpt.fill(made.network, found["adapters"], source)
        own = {name: _make_linear(found["projectors"], name, made.width, source) for name in streams}
        report["projectors"] = weights.identity(source, libraries=()) | {
            "loaded": {name: [module.in_features, minigpt.digest(module.state_dict())] for name, module in own.items()}
        }
        if found["adapters"]:
            report["adapters"] = {"count": len(found["adapters"]), "digest": minigpt.digest(found["adapters"])}
    return Composed(made, ends.embeddings, own).eval().requires_grad_(False), report


def _make_linear(found: dict[str, Any], name: str, width: int, source: object) -> nn.Linear:
    weight, bias = found[f"{name}.weight"].float(), found[f"{name}.bias"].float()
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or len(weight) != width:
        raise WeightsError(
            f"{source}: {minigpt.PROJECTORS[name]} is of shape {tuple(weight.shape)}, and the language model is {width} wide; "
            "take the language model that it was trained with."
        )
    linear = nn.Linear(weight.shape[1], width)
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


def fit_projector(model: Composed, name: str, inputs: int, projectors: str) -> None:
    """See that a stream has a projector that takes its rows; a seeded stand-in is made where `projectors` is `random:`.

    Raises:
        ParamsError: it takes rows of another width.
    """
    source = weights.parse(projectors)
    if name not in model.projectors and source.random:
        made = make_projector(name, inputs, model.width, source.seed or 0)
        model.projectors[name] = made.to(model.embeddings.device).requires_grad_(False)
    projector: Any = model.projectors[name]
    if projector.in_features != inputs:
        raise ParamsError(
            f"stream {name} gives rows of {inputs}, and its projector in {projectors} takes {projector.in_features}; "
            f"choose the encoder that it was trained with."
        )

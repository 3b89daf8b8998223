"""A language model cut in two at a layer: what lies below runs once over a corpus, what lies above is trained and run again.

Both halves give what the whole gives, to the last bit in float32.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import ParamsError, WeightsError

from . import gguf
from .load import check_coverage, state
from .source import Source, config, locate, parse

if TYPE_CHECKING:
    import torch

#: Models whose layers stand in `layers`, with one `norm` and one `rotary_emb` for all.
KINDS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2")
#: What a configuration says layer by layer.
EACH = ("layer_types", "no_rope_layers")
#: What the layers, and the norm after the last of them, are called in the models that can be cut off above a layer.
PARTS = {**dict.fromkeys(KINDS, ("layers", "norm")), "gpt2": ("h", "ln_f")}
_LAYER = re.compile(r"^(?:model\.)?layers\.(\d+)\.(.+)$")


def resolve_depth(asked: float, layers: int, name: str) -> int:
    """A number of layers from a number or, below 1, a share of all of them.

    Raises:
        ParamsError: there are not so many, or nothing would be left above.

    >>> resolve_depth(0.5, 30, "depth"), resolve_depth(20, 30, "depth"), resolve_depth(0, 30, "depth")
    (15, 20, 0)
    """
    depth = round(asked * layers) if asked < 1 else int(asked)
    if depth != asked and asked >= 1:
        raise ParamsError(f"{name} {asked:g}: write a whole number of layers, or a share below 1.")
    if depth >= layers:
        raise ParamsError(f"{name} {asked:g}: the model has {layers} layers, and at least one has to be left above.")
    return depth


def name_base(identity: Mapping[str, object]) -> str:
    """A short name of the weights of an identity: equal where the same numbers are meant, wherever they lie."""
    kept = {key: identity[key] for key in ("sha256", "random", "architecture") if key in identity}
    if "random" in kept:
        kept["source"] = identity["source"]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def cut_above(network: Any, depth: int) -> Any:
    """The network with its lower `depth` layers alone, and no norm after them."""
    from torch import nn

    layers, norm = PARTS[network.config.model_type]
    setattr(network, layers, getattr(network, layers)[:depth])
    setattr(network, norm, nn.Identity())  # it belongs to the last layer's states alone
    network.config.num_hidden_layers = depth
    return network


def describe_above(source: Source | str, architecture: dict, depth: float, name: str) -> tuple[dict, int, int]:
    """Configuration of the layers above, the resolved depth, and how many layers the whole has.

    Raises:
        WeightsError: the weights are not there, or are of an architecture that cannot be cut.
        ParamsError: a depth that cannot be, or an architecture that does not fit.
    """
    source = parse(source) if isinstance(source, str) else source
    return _describe_above(str(source), json.dumps(architecture, sort_keys=True), depth, name)


@functools.lru_cache(maxsize=8)
def _describe_above(address: str, architecture: str, depth: float, name: str) -> tuple[dict, int, int]:
    from .pretrained import configuration

    source, says = parse(address), json.loads(architecture)
    if source.random:
        kind = str(says.pop("model_type", "llama"))
        whole = configuration(_find_config(source, kind), says).to_dict()
    else:
        says = config(locate(source))
        kind = str(says.get("model_type"))
        whole = _find_config(source, kind)(**says).to_dict()
    count = int(whole["num_hidden_layers"])
    below = resolve_depth(depth, count, name)
    cut = whole | {"num_hidden_layers": count - below, "vocab_size": 1}
    cut |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    cut |= {key: cut[key][below:] for key in EACH if cut.get(key)}
    # Where the file came from, and what the library was: no part of the shape.
    for key in ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "quantization_config"):
        cut.pop(key, None)
    return cut, below, count


def _find_config(source: object, kind: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if kind not in KINDS:
        raise WeightsError(f"{source} is a {kind!r} model; language models of these kinds can be cut: {', '.join(KINDS)}.")
    return CONFIG_MAPPING[kind]


@functools.lru_cache(maxsize=1)
def read_above(address: str, architecture: str, depth: int, dtype: str) -> dict[str, torch.Tensor]:
    """Weights of the layers above `depth` and of the last norm, named as in a model of these layers alone.

    Of a file, layers below and the vocabulary are not read. The last answer is kept: several runs share its tensors, which
    are frozen.

    Args:
        architecture: JSON of a stand-in's.

    Raises:
        WeightsError: a layer is missing.
    """
    import torch

    source = parse(address)
    if source.random:
        found = make_stand_in(source, json.loads(architecture))
    else:
        path = locate(source)
        wanted = functools.partial(_lies_above, depth=depth)
        found = gguf.state(path, wanted) if path.suffix == gguf.SUFFIX else state(path, wanted=wanted)
    result = {}
    for name, value in found.items():
        if not _lies_above(name, depth):
            continue
        layer = _LAYER.match(name)
        place = f"layers.{int(layer[1]) - depth}.{layer[2]}" if layer else "norm.weight"
        result[place] = value.to(getattr(torch, dtype))
    if not result:
        raise WeightsError(f"{address} has no layer above {depth}; it is no language model of these kinds: {', '.join(KINDS)}.")
    return result


def check_layers(origin: object, wanted: set[str], found: set[str]) -> None:
    """Raise unless the weights cover the layers and hold nothing else; buffers that are computed are left out.

    Raises:
        WeightsError: names some of what is missing.
    """
    check_coverage(origin, wanted, wanted - found, found - wanted, dropped=("rotary_emb",))


def _lies_above(name: str, depth: int) -> bool:
    layer = _LAYER.match(name)
    return int(layer[1]) >= depth and "rotary_emb" not in name if layer else name in ("norm.weight", "model.norm.weight")


def make_stand_in(source: Source, architecture: dict) -> dict[str, torch.Tensor]:
    """State dict of a whole stand-in, without a head."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    from .pretrained import load

    kind = str(architecture.pop("model_type", "llama"))
    config_class = _find_config(source, kind)
    model = load(MODEL_MAPPING[config_class], source, architecture=architecture, config_class=config_class, attention=None)
    return dict(model.state_dict())

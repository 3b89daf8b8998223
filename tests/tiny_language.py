"""A LLaMA of two layers for fusions that hold one."""

import json

import torch

from pipeline.models.model import EmotionModel
from pipeline.models.registry import FUSIONS
from pipeline.models.spec import LanguageSpec
from pipeline.weights import layers

SHAPE = {"intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 256}
ADDRESS = "random:0"


def describe(width=16, depth=1, stream=None, **changes):
    """The layers above `depth`."""
    shape = {"model_type": "llama", "vocab_size": 64, "hidden_size": width, **SHAPE, **changes}
    config, below, count = layers.describe_above(ADDRESS, shape, depth, "depth")
    return LanguageSpec(weights=ADDRESS, architecture=shape, base="b", config=config, below=below, layers=count, stream=stream)


def weights_of(language):
    """Their frozen weights."""
    architecture = json.dumps(language.architecture, sort_keys=True)
    return layers.read_above(language.weights, architecture, language.below, language.dtype)


def build_with_language(spec):
    """The model; adapters that begin as nothing are made something, so that all of them matter."""
    if FUSIONS.find(spec.fusion.name).holds_language and spec.language is None:
        spec = spec.model_copy(update={"language": describe(spec.width)})
    model = EmotionModel(spec, weights_of(spec.language) if spec.language else None)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    return model


def find_dead(model):
    """Names of what is to be learned and got no gradient."""
    return [name for name, p in model.named_parameters() if name in model.learned and (p.grad is None or not p.grad.any())]

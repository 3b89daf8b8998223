"""What a language model's training step is said to hold, against what it holds."""

import pytest
import torch

from benchmarks import memory
from benchmarks.memory import Shape, plan
from pipeline.models.language import LanguageModel, Lora
from tests import tiny_language


def build(dtype, depth, lora, shared=2, checkpointing=False):
    spec = tiny_language.describe(24, depth)
    config = spec.config | {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": shared, "head_dim": 6}
    config |= {"intermediate_size": 40}
    shape = Shape.of(config | {"num_hidden_layers": 3})
    from transformers import LlamaConfig, LlamaModel

    config = {key: value for key, value in config.items() if key != "model_type"}
    source = LlamaModel(LlamaConfig(**config)).to(getattr(torch, dtype))
    state = {name: value for name, value in source.state_dict().items() if "embed" not in name}
    spec = spec.model_copy(update={"config": {"model_type": "llama", **config}, "dtype": dtype})
    return LanguageModel(spec, state, lora, checkpointing=checkpointing).train(), shape


@pytest.mark.parametrize("targets", ["qv", "all"])
@pytest.mark.parametrize(("dtype", "shared"), [("float32", 2), ("bfloat16", 4)])
def test_weights_and_adapters_are_exact(dtype, shared, targets):
    lora = Lora(r=3, targets=targets)
    model, shape = build(dtype, 0, lora, shared)
    sizes = {True: 0, False: 0}
    for value in model.parameters():
        sizes[value.requires_grad] += value.numel() * value.element_size()
    found = plan(shape, 0, lora, dtype, 1, 1)
    assert (found.weights, found.adapters) == (sizes[False], sizes[True])
    assert (found.gradients, found.moments) == (sizes[True], 2 * sizes[True])


def measure(model, clips, tokens):
    """Bytes of all storages kept for the gradient that are no weights."""
    weights = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    states = torch.randn(clips, tokens, model.width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        found = model(states, torch.ones(clips, tokens).bool())
    assert found.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("tokens", [8, 64])
@pytest.mark.parametrize(
    ("dtype", "targets", "dropout"), [("float32", "qv", 0.05), ("float32", "qv", 0), ("bfloat16", "all", 0.05)]
)
def test_activations_are_as_said(dtype, targets, dropout, tokens):
    lora = Lora(r=3, targets=targets, dropout=dropout)
    model, shape = build(dtype, 0, lora)
    said = plan(shape, 0, lora, dtype, 2, tokens, fused=False).activations
    print(said, measure(model, 2, tokens))
    assert said == pytest.approx(measure(model, 2, tokens), rel=0.15)

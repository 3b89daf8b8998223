"""What a language model's training step is said to hold, against what it holds."""

from pathlib import Path

import pytest
import torch

from benchmarks.memory import Shape, plan, tabulate
from pipeline.models.language import LanguageModel, Lora
from tests import tiny_language

ROOT = Path(__file__).resolve().parents[1]


def build(dtype, lora, shared=2, checkpointing=False):
    """Two layers above one, and the shape of all three."""
    spec = tiny_language.describe(24, 1, num_attention_heads=4, num_key_value_heads=shared, intermediate_size=40)
    spec = spec.model_copy(update={"dtype": dtype})
    shape = Shape.of({**spec.config, "num_hidden_layers": spec.layers})
    return LanguageModel(spec, tiny_language.weights_of(spec), lora, checkpointing=checkpointing).train(), shape


@pytest.mark.parametrize("targets", ["qv", "all"])
@pytest.mark.parametrize(("dtype", "shared"), [("float32", 2), ("bfloat16", 4)])
def test_weights_and_adapters_are_exact(dtype, shared, targets):
    lora = Lora(r=3, targets=targets)
    model, shape = build(dtype, lora, shared)
    sizes = {True: 0, False: 0}
    for value in model.parameters():
        sizes[value.requires_grad] += value.numel() * value.element_size()
    found = plan(shape, 1, lora, dtype, 1, 1)
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
    model, shape = build(dtype, lora)
    said = plan(shape, 1, lora, dtype, 2, tokens, fused=False).activations
    assert said == pytest.approx(measure(model, 2, tokens), rel=0.15)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for an old name
def test_checkpointing_keeps_what_goes_into_each_layer():
    """The hooks see the layers' inputs alone; one layer at a time is computed again, which the plan adds."""
    lora = Lora(r=3)
    model, shape = build("float32", lora, checkpointing=True)
    kept = measure(model, 2, 64)
    said, whole = (plan(shape, 1, lora, "float32", 2, 64, fused=False, checkpointing=one).activations for one in (True, False))
    assert said < whole and said - (whole - 4 * 2 * 64 * 24) / 2 == pytest.approx(kept, rel=0.15)


def test_the_documentation_has_the_table():
    assert tabulate() in (ROOT / "docs" / "llama.md").read_text(encoding="utf-8")

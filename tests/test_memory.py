"""What a language model's training step is said to hold, against what it holds."""

from pathlib import Path

import pytest
import torch

from benchmarks.memory import GIB, VIT_B_32, Shape, Tower, plan, tabulate
from pipeline.adaptation.layers import checkpoint_blocks
from pipeline.models.language import LanguageModel, Lora
from pipeline.weights import adapters
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


def keep(network, compute):
    """Bytes of all storages that `compute` keeps for the gradient and that are no weights."""
    weights = {value.untyped_storage().data_ptr() for value in [*network.parameters(), *network.buffers()]}
    kept = {}

    def pack(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = value  # held, so that no later one has its place
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        found = compute()
    assert found.requires_grad
    return sum(value.untyped_storage().nbytes() for value in kept.values())


def measure(model, clips, tokens):
    """What a language model keeps."""
    states = torch.randn(clips, tokens, model.width, requires_grad=True)
    return keep(model, lambda: model(states, torch.ones(clips, tokens).bool()))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("layers", "heads", "r", "pictures"), [(2, 3, 4, 5), (3, 2, 2, 2)])
def test_an_image_tower_keeps_of_each_picture_what_is_said(layers, heads, r, pictures, checkpointing):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 48, "intermediate_size": 80, "patch_size": 8, "image_size": 32, "projection_dim": 24}
    network = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, num_hidden_layers=layers, num_attention_heads=heads)).eval()
    targets = [name for name, _ in network.named_modules() if name.endswith(("q_proj", "v_proj"))]
    adapters.attach(network, targets, r=r, alpha=16, dropout=0.05)
    if checkpointing:
        assert checkpoint_blocks(network) == layers
    said = Tower(17, 48, 80, layers, heads).keep(r, checkpointing=checkpointing)
    assert keep(network, lambda: network(pixel_values=torch.rand(pictures, 3, 32, 32)).image_embeds) == pictures * said


def test_the_page_of_adaptation_says_what_a_tower_keeps():
    whole, less = (VIT_B_32.keep(8, checkpointing=checkpointing) for checkpointing in (False, True))
    page = (ROOT / "docs/adapt.md").read_text()
    assert f"{whole / 2**20:.1f} MiB and {less / 2**20:.1f} MiB a frame for ViT-B/32" in page
    assert f"come to {512 * whole / GIB:.1f} GiB, and" in page and f"{512 * less / GIB:.1f} GiB with checkpointing" in page


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

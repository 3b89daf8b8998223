"""CLIP zero-shot prompts against the library's own two-tower call."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.vision import images
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import pretrained

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 16,
    "image_size": 48,
    "projection_dim": 16,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A CLIP model with a tokeniser whose vocabulary is single letters."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": len(words),
        "max_position_embeddings": 77,
        "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1,
        "pad_token_id": len(words) - 1,
    }
    with torch.random.fork_rng(), pretrained.quiet():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=16))
        model.save_pretrained(folder)
        CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def stream(folder, **options) -> Stream:
    return Stream(modality="face", source="data/faces.h5", encoder="zero_shot", weights=f"local:{folder}", options=options)


def test_equals_the_library_with_one_wording(checkpoint, frames_clip, encode):
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    clip, classes = frames_clip(5), ["happy", "sad", "angry"]
    options = {"classes": classes, "templates": ["a {} face."]}
    ((values, times),) = encode(registry.build(stream(checkpoint, **options)), [clip])
    with pretrained.quiet(), torch.inference_mode():
        model = CLIPModel.from_pretrained(checkpoint).eval()
        tokens = CLIPTokenizer.from_pretrained(checkpoint)(
            [f"a {name} face." for name in classes], padding=True, return_tensors="pt"
        )
        pixels = CLIPImageProcessorPil.from_pretrained(checkpoint)(
            images=[images.decode(data) for data in clip.frames], return_tensors="pt"
        )["pixel_values"]
        output = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    np.testing.assert_allclose(values, output.logits_per_image.softmax(-1).numpy(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(values.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(times, clip.frame_times)
    ((cosines, _),) = encode(registry.build(stream(checkpoint, output="similarity", **options)), [clip])
    np.testing.assert_allclose(cosines * model.logit_scale.exp().item(), output.logits_per_image.numpy(), atol=1e-4)


def test_default_classes_and_wordings(checkpoint, frames_clip, encode, neighbours):
    extractor = registry.build(stream(checkpoint))
    ((values, _),) = encode(extractor, [frames_clip(5)])
    assert values.shape == (3, 7) and len(extractor.identity["classes"]) == 7
    neighbours(extractor)
    np.testing.assert_allclose(values[1, :4], DIGEST, atol=2e-3)


DIGEST = [0.274876, 0.013401, 0.01051, 0.61098]


def test_bad_options(checkpoint):
    for options, message in (
        ({"classes": ["happy"]}, "at least two"),
        ({"templates": ["a face"]}, "no {} for the class"),
        ({"output": "x"}, "Unknown zero_shot.options.output"),
    ):
        with pytest.raises(ParamsError, match=message):
            registry.build(stream(checkpoint, **options))


def test_image_tower_alone_is_not_enough(checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config["vision_config"] | {"model_type": "clip_vision_model"}))
    with pytest.raises(WeightsError, match="'clip_vision_model' model, this family reads clip"):
        Forward(registry.build(stream(tmp_path)))


def test_without_a_tokenizer(checkpoint, tmp_path):
    for path in checkpoint.iterdir():
        if "token" not in path.name and "vocab" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(WeightsError, match="has no tokenizer; fetch its tokenizer.json") as caught:
        Forward(registry.build(stream(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_stand_in_tells_sentences_apart(frames_clip, encode):
    """Hashed words: order of the classes is order of the columns, and no two sentences are the same."""
    text = {key: VISION[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
    architecture = {"vision_config": VISION, "text_config": text | {"vocab_size": 512}, "projection_dim": 16}
    seeded = Stream(modality="face", source="data/faces.h5", encoder="zero_shot", weights="random:0", architecture=architecture)
    clip, rows = frames_clip(5), []
    for classes in (["happy", "sad", "angry"], ["angry", "sad", "happy"]):
        one = seeded.model_copy(update={"options": {"classes": classes, "output": "similarity"}})
        rows.append(encode(registry.build(one), [clip])[0][0])
    np.testing.assert_allclose(rows[0], rows[1][:, ::-1], atol=1e-5)
    assert np.abs(np.diff(rows[0], axis=1)).min() > 1e-4

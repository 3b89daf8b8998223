"""The dialogue prompt and causal language models against the library itself."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Missing, Turn
from pipeline.features.encoders.text import dialogue
from pipeline.features.encoders.text.language import find_carriers
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

TURNS = (Turn("Ann", "Did it rain again?"), Turn(None, "  Never mind. "), Turn("Ben", None), Turn("Ben", "So be it"))


def stream(weights: str, **kwargs) -> Stream:
    return Stream(modality="text", source="data/manifest.parquet", encoder="dialogue", weights=weights, **kwargs)


def clip(text="I am happy!", context=TURNS, **kwargs) -> Clip:
    return Clip("a", text=text, speaker=kwargs.pop("speaker", "Ann"), context=context, **kwargs)


def run(extractor, *clips):
    return Forward(extractor)([extractor.prepare(c) for c in clips])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Tiny GPT-2 and LLaMA with a byte-level tokenizer, as the library writes them."""
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
            vocabulary = {token: i for i, token in enumerate([*alphabet, "<s>"])}
            backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
            backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
            backend.decoder = tokenizers.decoders.ByteLevel()
            if kind == "llama":
                backend.post_processor = tokenizers.processors.TemplateProcessing(
                    single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 256)]
                )
            tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<s>")
            tokenizer.save_pretrained(folder)
            torch.manual_seed(0)
            if kind == "gpt2":
                config = transformers.GPT2Config(
                    vocab_size=257, n_embd=32, n_layer=4, n_head=4, n_positions=256, bos_token_id=256, eos_token_id=256
                )
                model = transformers.GPT2LMHeadModel(config).eval()
            else:
                config = transformers.LlamaConfig(
                    vocab_size=257,
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=4,
                    num_attention_heads=4,
                    max_position_embeddings=256,
                    bos_token_id=256,
                    eos_token_id=256,
                )
                model = transformers.LlamaForCausalLM(config).eval()
            model.save_pretrained(folder)
            made[kind] = folder, model.base_model, tokenizer
        return made[kind]

    return make


def test_the_prompt_names_every_speaker_in_order():
    text, start = dialogue.write_prompt(clip(), 10)
    assert text == (
        'The speaker "Ann" says:\n###\nDid it rain again?\n###\n\n\n'
        'The speaker "unknown" says:\n###\nNever mind.\n###\n\n\n'
        'The speaker "Ben" says:\n###\nSo be it\n###\n\n\n'
        'The speaker "Ann" says:\n###\nI am happy!\n###'
    )
    assert text[start:].startswith("I am happy!")
    assert dialogue.write_prompt(clip(), 0)[0] == 'The speaker "Ann" says:\n###\nI am happy!\n###'
    assert dialogue.write_prompt(clip(), 1)[0].count("says:") == 2
    braces = dialogue.write_prompt(clip("{text} {0}", speaker="{x}"), 0)[0]
    assert "{text} {0}" in braces and '"{x}"' in braces


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("layer", [-1, 2])
def test_golden(saved, kind, layer):
    folder, model, tokenizer = saved(kind)
    text, start = dialogue.write_prompt(clip(), 10)
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        output = model(ids, output_hidden_states=True)
    wanted = (output.last_hidden_state if layer == -1 else output.hidden_states[layer])[0].numpy()
    ((last, times),) = run(registry.build(stream(f"local:{folder}", layer=layer, pooling="last", options={"turns": 9})), clip())
    np.testing.assert_allclose(last[0], wanted[-1], atol=1e-5)
    assert times.tolist() == [[0, 1]]
    ((words, times),) = run(registry.build(stream(f"local:{folder}", layer=layer, options={"turns": 9})), clip(duration=11.0))
    begin = start + (kind == "llama")
    np.testing.assert_allclose(words, wanted[begin : begin + 11], atol=1e-5)
    np.testing.assert_allclose(times[:, 0], np.arange(11))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(("layer", "run_through"), [([0, 2], 2), ("1+3", 3), (0, 1), (4, 4), (-2, 4), ("all", 4)])
def test_layers_above_the_highest_one_read_are_not_run(saved, kind, layer, run_through):
    folder, model, tokenizer = saved(kind)
    text, start = dialogue.write_prompt(clip(), 10)
    with torch.inference_mode():
        output = model(tokenizer(text, return_tensors="pt").input_ids, output_hidden_states=True)
    states = torch.stack(output.hidden_states, 2)[0]
    chosen = states if layer == "all" else states[:, [1, 3]].sum(1) if layer == "1+3" else states[:, layer]
    begin = start + (kind == "llama")
    extractor = registry.build(stream(f"local:{folder}", layer=layer, pooling="mean", options={"turns": 9}))
    ((mean, _),) = run(extractor, clip())
    # The mean is that of the clip's own words, without the mark that ends the turn.
    np.testing.assert_allclose(mean[0], chosen[begin : begin + 11].mean(0).numpy(), atol=1e-5)
    network = extractor.load("cpu").network
    assert len(network.h if kind == "gpt2" else network.layers) == run_through


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_alone_equals_among_neighbours(saved, kind):
    folder, *_ = saved(kind)
    extractor = registry.build(stream(f"local:{folder}", options={"turns": 3}, layer="all"))
    forward = Forward(extractor)
    clips = [extractor.prepare(clip("so " * n, TURNS[: n % 5])) for n in (1, 9, 2, 30, 4, 3, 12, 5)]
    for prepared, (values, times) in zip(clips, forward(clips), strict=True):
        ((alone, alone_times),) = forward([prepared])
        np.testing.assert_allclose(values, alone, atol=1e-5)
        np.testing.assert_array_equal(times, alone_times)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_prompt_that_another_begins_with_is_not_run_again(saved, kind):
    """The clips of a dialogue take one pass; each is as if it were alone."""
    folder, *_ = saved(kind)
    extractor = registry.build(stream(f"local:{folder}", layer=[1, 3], pooling="mean", options={"turns": 9}))
    said = ("Did it rain?", "It did.", "Again and again, all day.", "So it goes.")
    turns = [Turn("AnnBen"[3 * (i % 2) :][:3], text) for i, text in enumerate(said)]
    clips = [extractor.prepare(clip(turn.text, tuple(turns[:i]), speaker=turn.speaker)) for i, turn in enumerate(turns)]
    other = extractor.prepare(clip("It did.", (Turn("Zoe", "Did it rain?"),), speaker="Ben"))
    assert len({one.bucket for one in clips}) == 1 and other.bucket != clips[0].bucket
    forward = Forward(extractor)
    batch = [clips[2], other, clips[0], clips[3], clips[1]]
    assert find_carriers([one.inputs["ids"] for one in batch]) == ([3, 1], [0, 1, 0, 0, 0])
    for (values, _), one in zip(forward(batch), batch, strict=True):
        np.testing.assert_allclose(values, forward([one])[0][0], atol=1e-5)


def test_clips_that_have_lost_their_first_turns_meet_whom_they_may(saved):
    folder, *_ = saved("gpt2")
    extractor = registry.build(stream(f"local:{folder}", options={"turns": 2}))
    assert extractor.prepare(clip(context=TURNS)).bucket is None
    assert extractor.prepare(clip(context=TURNS[:1])).bucket == ("Ann", "Did it rain again?")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_truncation_keeps_the_current_utterance(saved, kind):
    folder, _, tokenizer = saved(kind)
    extractor = registry.build(stream(f"local:{folder}", options={"turns": 100}))
    long = tuple(Turn("Ben", f"turn {i} of many") for i in range(50))
    prepared = extractor.prepare(clip(context=long))
    ids, rows = prepared.inputs["ids"], prepared.inputs["rows"]
    assert len(ids) == 256 and tokenizer.decode(ids[rows]) == "I am happy!"
    assert tokenizer.decode(ids[~rows]).endswith("###") and "turn 49" in tokenizer.decode(ids)
    if kind == "llama":
        assert ids[0] == 256
    endless = extractor.prepare(clip("x" * 500 + " the end"))
    assert tokenizer.decode(endless.inputs["ids"][endless.inputs["rows"]]).endswith("the end")


def test_later_text_never_matters_and_earlier_does(saved):
    folder, *_ = saved("gpt2")
    extractor = registry.build(stream(f"local:{folder}", pooling="last", options={"turns": 2}))
    near = run(extractor, clip())[0][0]
    assert np.abs(near - run(extractor, clip(context=()))[0][0]).max() > 1e-3
    np.testing.assert_array_equal(near, run(extractor, clip(context=(Turn("Zoe", "long ago"), *TURNS)))[0][0])


def test_stand_in():
    small = dict(vocab_size=512, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    extractor = registry.build(stream("random:0", architecture=small, pooling="last", options={"turns": 5}))
    ((values, _),) = run(extractor, clip())
    assert values.shape == (1, 16)
    assert len(extractor.prepare(clip("so " * 99)).inputs["ids"]) == 32
    assert json.loads(json.dumps(extractor.identity)) == extractor.identity
    pickle.dumps(extractor.load)
    assert pickle.loads(pickle.dumps(extractor.prepare))(clip()).inputs["rows"].any()


def test_bad_input(saved, tmp_path):
    folder, *_ = saved("gpt2")
    extractor = registry.build(stream(f"local:{folder}"))
    for nothing in (None, " "):
        with pytest.raises(Missing):
            extractor.prepare(clip(nothing))
    for options in ({"max_length": 4}, {"max_length": 257}, {"turns": -1}):
        with pytest.raises(ParamsError, match="turns|max_length"):
            registry.build(stream(f"local:{folder}", options=options))
    for wrong in ("bert", "t5", "whisper"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": wrong}))
        with pytest.raises(WeightsError, match=wrong):
            registry.build(stream(f"local:{tmp_path}"))

"""The trunk of a language model: its prompt, the rows that are kept, and that they are what the whole model has there."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders.extractor import Clip, Missing, Turn
from pipeline.features.encoders.registry import build
from pipeline.features.encoders.text import tokens, trunk
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import seeded

SHAPE = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
CLIP = Clip("a", text="I am so glad!", speaker="Ann", context=(Turn("Bob", "Look, it rains."), Turn(None, "")), duration=2.0)
WORDS = tokens.Words(512)


def stream(**changes):
    base = {"modality": "text", "source": "x", "encoder": "trunk", "weights": "random:3", "architecture": SHAPE}
    return Stream.model_validate({**base, "options": {"depth": 2}, **changes})


def rows(made, clip=CLIP):
    extractor = build(made)
    return Forward(extractor)([extractor.prepare(clip)])[0]


def test_a_prompt_is_instruction_turns_words_and_question():
    prompt = trunk.write_prompt(WORDS, CLIP, 2, 256)
    parts = [trunk.INSTRUCTION, "\nBob:", " Look, it rains.", "\nAnn:", " " + CLIP.text, trunk.CUE.format(speaker="Ann")]
    wanted = [1, *np.concatenate([WORDS.plain(part).ids for part in parts])]
    assert prompt.ids.tolist() == wanted
    start = 1 + sum(len(WORDS.plain(part).ids) for part in parts[:4])
    assert np.flatnonzero(prompt.own).tolist() == [*range(start, start + 5)]
    assert [CLIP.text[int(a) : int(b)] for a, b in prompt.spans[prompt.own]] == ["I", "am", "so", "glad", "!"]
    alone = [1, *np.concatenate([WORDS.plain(part).ids for part in parts if part not in parts[1:3]])]
    assert trunk.write_prompt(WORDS, CLIP, 0, 256).ids.tolist() == alone


def test_without_room_the_oldest_words_go_first_and_then_the_clips_last():
    whole = trunk.write_prompt(WORDS, CLIP, 2, 256)
    shorter = trunk.write_prompt(WORDS, CLIP, 2, len(whole.ids) - 3)
    head = len(WORDS.plain(trunk.INSTRUCTION).ids) + 1
    assert shorter.ids.tolist() == [*whole.ids[:head], *whole.ids[head + 3 :]]
    fixed = head + 2 + len(WORDS.plain(trunk.CUE.format(speaker="Ann")).ids)
    least = trunk.write_prompt(WORDS, CLIP, 2, fixed + 2)
    assert least.own.sum() == 2 and len(least.ids) == fixed + 2
    with pytest.raises(ParamsError, match="have no room for the instruction"):
        trunk.write_prompt(WORDS, CLIP, 2, fixed)


def test_the_clips_words_take_its_time_and_the_prompt_none():
    _, times = rows(stream())
    lasting = times[:, 1] > times[:, 0]
    assert lasting.sum() == 5 and not lasting[0] and times[0].tolist() == [0, 0] and times[-1].tolist() == [2, 2]
    assert times[lasting][0, 0] == 0 and times[lasting][-1, 1] == 2.0


@pytest.mark.parametrize("depth", [0, 2, 0.75])
def test_rows_are_the_states_of_the_whole_model(depth):
    found, _ = rows(stream(options={"depth": depth, "keep": "all"}))
    with seeded(3):
        model = LlamaModel._from_config(LlamaConfig(**{k: v for k, v in SHAPE.items() if k != "model_type"})).eval()
    ids = torch.from_numpy(trunk.write_prompt(WORDS, CLIP, 2, 256).ids)[None]
    with torch.inference_mode():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[round(depth * 4) if depth < 1 else depth][0]
    np.testing.assert_allclose(found, states, atol=1e-5)
    own, times = rows(stream(options={"depth": depth}))
    kept = trunk.write_prompt(WORDS, CLIP, 2, 256).kept
    np.testing.assert_allclose(own, states[kept], atol=1e-5)
    assert len(times) == kept.sum() == 1 + 5 + len(WORDS.plain(trunk.CUE.format(speaker="Ann")).ids)


def test_a_batch_changes_nothing_and_silence_is_missing():
    extractor = build(stream())
    other = Clip("b", text="No.", speaker=None)
    forward, prepared = Forward(extractor), [extractor.prepare(clip) for clip in (CLIP, other)]
    alone = [forward([one])[0] for one in prepared]
    for (values, times), (lone, at) in zip(forward(prepared), alone, strict=True):
        np.testing.assert_allclose(values, lone, atol=1e-5)
        assert (times == at).all()
    # The first token sees nothing but itself.
    np.testing.assert_allclose(alone[0][0][0], alone[1][0][0], atol=1e-6)
    for text in (None, "  "):
        with pytest.raises(Missing):
            extractor.prepare(Clip("c", text=text))


def test_what_decides_the_states_is_in_the_identity():
    plain = build(stream()).identity
    assert plain["trunk"]["depth"] == 2
    assert build(stream(options={"depth": 0.5})).identity["trunk"] == plain["trunk"]
    for changes in ({"weights": "random:4"}, {"options": {"depth": 3}}, {"options": {"depth": 2, "turns": 1}}):
        assert build(stream(**changes)).identity != plain
    assert build(stream(weights="random:4")).identity["trunk"]["base"] != plain["trunk"]["base"]
    assert build(stream(options={"depth": 2, "turns": 1})).identity["trunk"] == plain["trunk"]


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"pooling": "mean"}, ParamsError, "keeps the rows of options.depth"),
        ({"layer": 2}, ParamsError, "keeps the rows of options.depth"),
        ({"options": {"depth": 4}}, ParamsError, "trunk.options.depth 4: the model has 4 layers"),
        ({"options": {"depth": 1.5}}, ParamsError, "a whole number of layers, or a share below 1"),
        ({"architecture": {"model_type": "gpt2", "n_embd": 32}}, WeightsError, "'gpt2' model; a trunk can be cut from llama"),
    ],
)
def test_what_cannot_be_is_told(changes, error, said):
    with pytest.raises(error, match=said):
        build(stream(**changes))

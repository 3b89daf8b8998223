"""Transcripts by Whisper: the real tiny.en hears what the RAVDESS actors say."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
import soundfile
import tokenizers
import transformers

from pipeline.errors import ParamsError, StoreError, WeightsError
from pipeline.features import transcribe
from pipeline.params import Params
from pipeline.storage import media_store, tables
from pipeline.storage.clip_cache import ClipCache

SAID = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}


def params(**kwargs) -> Params:
    stream = {"modality": "text", "source": "x", "encoder": "text", "weights": "random:0"}
    return Params.model_validate(
        {
            "recipe": "t",
            "corpus": {"name": "folder", "root": "."},
            "streams": {"text": stream},
            "fusion": {"name": "concat"},
            "run": {"device": "cpu"},
            "asr": kwargs,
        }
    )


def plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower()).strip()


@pytest.fixture
def corpus(tmp_path, real):
    """Three RAVDESS clips: two without text, one with a text of its own; and one without sound."""
    takes = sorted((real / "ravdess/audio/Actor_03").glob("03-01-0[15]-01-0[12]-01-03.flac"))[:3]
    clips = {f"ravdess/{path.stem[3:]}": path for path in takes}
    texts = [None, "  ", "what a person wrote", None]
    rows = [
        {"id": clip, "content": f"c{i}", "text": text, "audio": "x"}
        for i, (clip, text) in enumerate(zip([*clips, "ravdess/silent"], texts, strict=True))
    ]
    tables.write(tables.frame(rows), tmp_path / "manifest.parquet")
    entries = {}
    for i, path in enumerate(clips.values()):
        data = path.read_bytes()
        seconds = soundfile.info(path).duration
        entries[f"c{i}"] = media_store.join_files([data], np.array([[0.0, seconds]], np.float32))
    entries["c3"] = media_store.absent_entry("no sound")
    identity = {"kind": "audio", "rate": 16000}
    with ClipCache("audio", identity) as cache:
        cache.put(entries)
        ordered = sorted(rows, key=lambda row: row["id"])
        media_store.pack(tmp_path / "audio.h5", ordered, "audio", cache, identity, {})
    return tmp_path, clips


def run(folder, **kwargs):
    out = transcribe.transcribe(
        params(**kwargs), folder / "manifest.parquet", folder / "audio.h5", folder / "transcripts.parquet"
    )
    return pl.read_parquet(out)


def test_ravdess_is_heard(corpus, real, monkeypatch):
    folder, clips = corpus
    weights = f"local:{real / 'weights/whisper-tiny.en'}"
    table = run(folder, weights=weights)
    assert table["id"].to_list() == list(clips)[:2]
    for clip, text in table.select("id", "text").iter_rows():
        assert plain(text) == SAID[clip.split("-")[3]]
    again = transcribe.fill_texts(tables.read(folder / "manifest.parquet"), folder / "transcripts.parquet").sort("id")
    by_id = dict(again.select("id", "text").iter_rows())
    assert by_id[list(clips)[2]] == "what a person wrote" and by_id["ravdess/silent"] is None
    assert plain(by_id[list(clips)[0]]) in SAID.values()
    # What was recognised is not recognised again, and the table is the same to the byte.
    before = (folder / "transcripts.parquet").read_bytes()
    monkeypatch.setattr(transcribe.Recogniser, "load", lambda *_: pytest.fail("recognised twice"))
    run(folder, weights=weights)
    assert (folder / "transcripts.parquet").read_bytes() == before


def test_nothing_is_recognised_unless_asked(corpus):
    folder, _ = corpus
    table = run(folder)
    assert len(table) == 0 and table.columns == ["id", "text", "weights"]
    same = transcribe.fill_texts(tables.read(folder / "manifest.parquet"), folder / "transcripts.parquet")
    assert same.equals(tables.read(folder / "manifest.parquet"))


def test_long_sound_is_recognised_in_pieces(real):
    folder = real / "weights/whisper-tiny.en"
    one, _ = soundfile.read(real / "ravdess/audio/Actor_03/03-01-05-01-01-01-03.flac", dtype="float32")
    two, _ = soundfile.read(real / "ravdess/audio/Actor_03/03-01-05-01-02-01-03.flac", dtype="float32")
    long = np.concatenate([one, np.zeros(30 * 16000 - len(one), np.float32), two])
    together, alone = transcribe.Recogniser(f"local:{folder}").load()([long, two])
    assert SAID["02"] in plain(together) and plain(together).startswith(SAID["01"])
    assert plain(alone) == SAID["02"]


def test_bad_input(corpus, real, tmp_path):
    folder, _ = corpus
    weights = f"local:{real / 'weights/whisper-tiny.en'}"
    with pytest.raises(ParamsError, match="English alone"):
        run(folder, weights=weights, language="de")
    with pytest.raises(WeightsError, match="not there"):
        run(folder, weights="local:/nowhere")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (bare / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="empty"):
        run(folder, weights=f"local:{bare}")
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, bare / "model.safetensors")
    with pytest.raises(WeightsError, match="bert"):
        run(folder, weights=f"local:{bare}")
    with pytest.raises(StoreError):
        transcribe.fill_texts(tables.read(folder / "manifest.parquet"), folder / "absent.parquet")


def test_a_language_the_checkpoint_does_not_know(tmp_path):
    """A tiny multilingual Whisper of two languages."""
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({word: i for i, word in enumerate([*marks, "a"])}, []))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=marks[0]).save_pretrained(tmp_path)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=8,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            eos_token_id=0,
            bos_token_id=0,
            pad_token_id=0,
            decoder_start_token_id=1,
        )
    )
    model.generation_config = transformers.GenerationConfig(
        is_multilingual=True,
        lang_to_id={"<|en|>": 2, "<|de|>": 3},
        task_to_id={"transcribe": 4},
        no_timestamps_token_id=5,
        eos_token_id=0,
        pad_token_id=0,
        decoder_start_token_id=1,
    )
    model.save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    weights = f"local:{tmp_path}"
    with pytest.raises(ParamsError, match="Unknown language of .* 'dd'. Known: de, en.") as caught:
        transcribe.Recogniser(weights, "dd").load()
    assert "\n" not in str(caught.value)
    for language in ("de", "german", None):
        assert len(transcribe.Recogniser(weights, language, limit=3).load()([np.zeros(1600, np.float32)])) == 1

"""Packs of MMSA: every split, by id, without the padding."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

LENGTHS = {"train": [5, 2, 1], "valid": [4], "test": [3, 5]}


@pytest.fixture
def pack():
    """Six clips of 1 to 5 rows, padded to 6; the vision rows lie at the end, as aligned packs were once written."""
    rng = np.random.default_rng(0)
    content = {}
    for split, lengths in LENGTHS.items():
        audio, vision = (np.zeros((len(lengths), 6, width), np.float32) for width in (3, 2))
        for at, length in enumerate(lengths):
            audio[at, :length] = rng.normal(size=(length, 3))
            vision[at, 6 - length :] = rng.normal(size=(length, 2))
        content[split] = {
            "id": [f"{split}_{at // 2}$_${at:04}" for at in range(len(lengths))],
            "raw_text": ["said"] * len(lengths),
            "audio": audio,
            "audio_lengths": lengths,
            "vision": vision,
            "text_bert": np.zeros((len(lengths), 3, 6), np.float32),
            "annotations": ["Neutral"] * len(lengths),
            "regression_labels": np.zeros(len(lengths), np.float32),
        }
    return content


def extractor(folder, content, key, protocol=4):
    path = folder / "pack.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    options = {"key": key, "clip_id": "^mosi/(.*)$"}
    return registry.build(Stream(modality="audio", source=str(path), encoder="import", weights=f"file:{path}", options=options))


def rows(found, clip):
    ((values, _),) = Forward(found, device="cpu")([found.prepare(Clip(clip, duration=2.0))])
    return values


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_split_is_read_by_id(tmp_path, pack, protocol):
    found = extractor(tmp_path, pack, "audio", protocol)
    for split, lengths in LENGTHS.items():
        for at, length in enumerate(lengths):
            values = rows(found, f"mosi/{split}_{at // 2}/{at:04}")
            assert np.array_equal(values, pack[split]["audio"][at, :length])


def test_padding_that_no_length_tells_is_cut(tmp_path, pack):
    found = extractor(tmp_path, pack, "vision")
    assert np.array_equal(rows(found, "mosi/train_0/0001"), pack["train"]["vision"][1, 4:])
    pack["train"]["vision"][2] = 0
    with pytest.raises(Missing):
        rows(extractor(tmp_path, pack, "vision"), "mosi/train_1/0002")


def test_one_split_alone(tmp_path, pack):
    found = extractor(tmp_path, pack, "test/audio")
    assert len(rows(found, "mosi/test_0/0001")) == 5
    with pytest.raises(Missing):
        rows(found, "mosi/train_0/0000")


def test_what_does_not_fit_is_one_line(tmp_path, pack):
    with pytest.raises(ParamsError, match=r"several modalities; choose one in options.key: audio, vision"):
        extractor(tmp_path, pack, None)
    with pytest.raises(ParamsError, match=r"Did you mean 'audio'"):
        extractor(tmp_path, pack, "audi")
    pack["valid"]["id"] = ["train_0$_$0000"]
    with pytest.raises(WeightsError, match=r"names clip 'train_0/0000' twice"):
        extractor(tmp_path, pack, "audio")
    pack["valid"]["id"] = []
    with pytest.raises(WeightsError, match=r"valid has 0 ids and 1 rows of audio"):
        extractor(tmp_path, pack, "audio")

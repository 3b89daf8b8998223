"""Pooling over time and layer selection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.compose import compose, text
from pipeline.errors import ParamsError
from pipeline.features.encoders import pooling, registry
from pipeline.features.encoders.extractor import Clip
from pipeline.params import Stream, parse, parse_stream
from pipeline.params.features import Sum
from tests.features.encoders.small import SMALL


def rows(count: int, width: int = 3, rate: float = 50.0, seed: int = 0):
    values = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return values, pooling.frame_times(count, rate)


ORACLES = {
    "mean": lambda v: v.mean(0),
    "max": lambda v: v.max(0),
    "mean_max": lambda v: np.concatenate([v.mean(0), v.max(0)]),
    "first": lambda v: v[0],
    "last": lambda v: v[-1],
    "statistics": lambda v: np.concatenate([v.mean(0), v.std(0)]),
}


@pytest.mark.parametrize("kind", sorted(pooling.POOLS))
def test_whole_clip_equals_numpy(kind):
    values, times = rows(37)
    pooled, spans = pooling.reduce(values, times, pooling=kind)
    assert pooled.shape == (1, 3 * (2 if kind in ("mean_max", "statistics") else 1)) and pooled.dtype == np.float32
    np.testing.assert_allclose(pooled[0], ORACLES[kind](values), atol=1e-6)
    np.testing.assert_allclose(spans, [[0, 37 / 50]])


@pytest.mark.parametrize("kind", ["none", *sorted(pooling.POOLS)])
@pytest.mark.parametrize("rate", [None, 4.0])
def test_masked_rows_never_count(kind, rate):
    values, times = rows(40)
    padded = np.concatenate([values, np.full((9, 3), 1e4, np.float32)])
    long = np.concatenate([times, times[-1] + np.arange(1, 10)[:, None] / 50])
    mask = np.arange(49) < 40
    got = pooling.reduce(padded, long, pooling=kind, rate=rate, mask=mask)
    expected = pooling.reduce(values, times, pooling=kind, rate=rate)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def test_rate_is_the_mean_of_each_window():
    values = np.arange(10, dtype=np.float32)[:, None]
    pooled, times = pooling.reduce(values, pooling.frame_times(10, 10.0), rate=2.0)
    np.testing.assert_allclose(pooled[:, 0], [2.0, 7.0])
    np.testing.assert_allclose(times, [[0, 0.5], [0.5, 1.0]])


def test_rate_pools_with_the_kind_named():
    values = np.arange(10, dtype=np.float32)[:, None]
    pooled, _ = pooling.reduce(values, pooling.frame_times(10, 10.0), rate=2.0, pooling="max")
    np.testing.assert_allclose(pooled[:, 0], [4.0, 9.0])


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 200), rate=st.floats(0.5, 80), own=st.sampled_from([4.0, 25.0, 50.0]))
def test_every_row_counts_once(count, rate, own):
    values, times = rows(count, rate=own)
    ones, spans = pooling.to_rate(np.arange(count, dtype=np.float32)[:, None], times, rate, "first")
    starts = ones[:, 0].astype(int)
    assert starts[0] == 0 and (np.diff(starts) > 0).all()
    sizes = np.diff([*starts, count])
    pooled, _ = pooling.to_rate(values, times, rate)
    np.testing.assert_allclose((pooled * sizes[:, None]).sum(0), values.sum(0), atol=1e-3)
    assert len(pooled) <= count and (spans[:, 1] >= spans[:, 0]).all() and (np.diff(spans[:, 0]) > 0).all()
    assert spans[0, 0] == times[0, 0] and spans[-1, 1] == times[-1, 1]


def test_sparse_rows_are_not_invented():
    values, _ = rows(3)
    times = np.array([[0, 0.1], [1.0, 1.1], [5.0, 5.1]], np.float32)
    pooled, spans = pooling.reduce(values, times, rate=10.0)
    np.testing.assert_array_equal(pooled, values)
    np.testing.assert_allclose(spans, times, atol=1e-6)


def test_layers_are_kept_through_pooling():
    values = torch.randn(20, 5, 3)
    pooled, _ = pooling.reduce(values, pooling.frame_times(20, 50.0), pooling="statistics")
    assert pooled.shape == (1, 5, 6)


def test_half_precision_is_pooled_in_float32():
    values = torch.full((4000, 2), 60.0, dtype=torch.float16)
    pooled, _ = pooling.reduce(values, pooling.frame_times(4000, 50.0), pooling="mean")
    np.testing.assert_allclose(pooled, 60.0)


def test_select():
    states = [torch.full((2, 3), float(i)) for i in range(7)]
    assert pooling.select(states, -1)[0, 0] == 6
    assert pooling.select(states, 0)[0, 0] == 0
    assert pooling.select(states, "last4")[0, 0] == 3 + 4 + 5 + 6
    assert pooling.select(states, "all").shape == (2, 7, 3)


@pytest.mark.parametrize(
    ("layer", "layers"),
    [(7, 6), (-8, 6), ("last4", 3), ([2, 7], 6), ([-8], 6), ([], 6), ([6, -1], 6), (Sum(sum=[2, 7]), 6), (Sum(sum=[0, -7]), 6)],
)
def test_a_layer_that_is_not_there(layer, layers):
    with pytest.raises(ParamsError, match="layer"):
        pooling.check_layer(layer, layers)
    with pytest.raises(ParamsError, match="layer"):
        pooling.select([torch.zeros(1)] * (layers + 1), layer)


def test_bad_input():
    values, times = rows(5)
    with pytest.raises(ParamsError, match="mean_max"):
        pooling.reduce(values, times, pooling="mean-max")
    with pytest.raises(ValueError, match="no row"):
        pooling.reduce(values, times, pooling="mean", mask=np.zeros(5, bool))
    with pytest.raises(ValueError, match="times"):
        pooling.reduce(values, times[:3])
    with pytest.raises(ValueError, match="time order"):
        pooling.to_rate(values, times[::-1], 50.0)


def test_frame_times_end_with_the_clip():
    times = pooling.frame_times(49, 50.0, 1.0)
    assert times[0, 0] == 0 and times[-1, 1] == 1.0
    np.testing.assert_allclose(times[1:, 0], times[:-1, 1])


def test_cut():
    batch = torch.arange(12).reshape(2, 6)
    assert [len(part) for part in pooling.cut(batch, [4, 6])] == [4, 6]


def test_four_layers_are_enough_for_their_sum():
    states = [torch.full((2, 3), float(i)) for i in range(5)]
    pooling.check_layer("last4", 4)
    assert pooling.select(states, "last4")[0, 0] == 1 + 2 + 3 + 4
    with pytest.raises(ParamsError, match="has 3"):
        pooling.select(states[1:], "last4")


def test_no_frame_lies_beyond_the_clip():
    """A front end that pads gives more frames than fit: what is over has no time of its own."""
    times = pooling.frame_times(4, 2.0, 0.8)
    np.testing.assert_allclose(times, [[0, 0.5], [0.5, 0.8], [0.8, 0.8], [0.8, 0.8]])


def test_as_many_lengths_as_clips():
    with pytest.raises(ValueError, match="zip"):
        pooling.cut(torch.zeros(3, 2, 1), [1, 2])


@pytest.mark.parametrize("chosen", [[2, 3, 4], [4, 2], [1], [0, -1]])
def test_a_list_keeps_its_layers_and_a_sum_adds_them(chosen):
    states = [torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    kept = pooling.select(states, chosen)
    torch.testing.assert_close(kept, pooling.select(states, "all")[..., chosen, :], rtol=0, atol=0)
    torch.testing.assert_close(pooling.select(states, Sum(sum=chosen)), sum(states[i] for i in chosen))
    torch.testing.assert_close(pooling.select(states, "last4"), pooling.select(states, Sum(sum=[1, 2, 3, 4])), rtol=0, atol=0)
    assert pooling.keeps_several(chosen) and pooling.keeps_several("all")
    assert not any(pooling.keeps_several(one) for one in (-1, "last4", Sum(sum=chosen)))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ([], "an empty list names no layer"),
        ({"sum": []}, "an empty list names no layer"),
        ([2, 3, 2], "layer 2 is named twice"),
        ({"sum": [1, 1]}, "layer 1 is named twice"),
        ("2+3+2", "layer 2 is named twice"),
        ([1, 2.5], "2.5 is no layer"),
        ([True, 2], "True is no layer"),
        (["last4"], "'last4' is no layer"),
        ({"sum": 3}, "write [2, 3, 4] to keep them or 2+3+4"),
        ({"mean": [1, 2]}, "write [2, 3, 4] to keep them or 2+3+4"),
    ],
)
def test_a_list_of_layers_that_cannot_be_is_one_line(layer, said):
    with pytest.raises(ParamsError) as error:
        parse_stream({"modality": "audio", "source": "a", "encoder": "hubert", "weights": "random:0", "layer": layer}, "p.yaml")
    assert said in str(error.value) and str(error.value).startswith("p.yaml: layer: ") and "\n" not in str(error.value)
    assert str(error.value).count("p.yaml") == 1


CHOICES = {
    "hubert": ("audio", "hubert_base"),
    "whisper": ("audio", "whisper_tiny_en"),
    "emotion2vec": ("audio", "emotion2vec_base"),
    "text": ("text", "bert_base"),
    "dialogue": ("text", "gpt2_dialogue"),
    "vit": ("face", "vit_base"),
    "mae": ("face", "face_mae"),
    "clip": ("face", "clip_base"),
}


@pytest.mark.parametrize("family", CHOICES)
def test_every_family_keeps_and_adds_the_layers_it_is_asked_for(family, frames_clip, encode):
    modality, name = CHOICES[family]
    film, wave = frames_clip(1), np.random.default_rng(0).normal(size=16000).astype(np.float32) / 9
    clip = Clip("a", film.frames, film.frame_times, wave, text="I am happy", speaker="A", duration=1.0)
    options = {"readout": "cls"} if family == "clip" else {}

    def rows(layer):
        spec = {"modality": modality, "source": "a", "encoder": family, "weights": "random:0", "architecture": SMALL[name]}
        extractor = registry.build(Stream(**spec, layer=layer, options=options))
        assert extractor.identity["layer"] == layer
        return encode(extractor, [clip])[0][0]

    whole = rows("all")
    assert whole.ndim == 3
    np.testing.assert_array_equal(rows([2, 1]), whole[:, [2, 1]])
    np.testing.assert_allclose(rows({"sum": [2, 1]}), whole[:, 2] + whole[:, 1], atol=1e-5)
    with pytest.raises(ParamsError, match="layer 99 is not there"):
        rows([1, 99])


def test_layers_are_chosen_on_the_command_line():
    folder = Path(__file__).resolve().parents[3] / "conf"
    for override, kept in (("[2,3]", (2, 3)), ("2+3", Sum(sum=(2, 3))), ("2+-1", Sum(sum=(2, -1))), ("all", "all"), ("-2", -2)):
        for recipe in ("ravdess", "demo"):  # which has a list in its place, and a number
            values = compose([f"recipe={recipe}", f"streams.audio.layer={override}"], folder)
            assert parse(YAML(typ="safe", pure=True).load(text(values))).stream("audio").layer == kept
    values = compose(["+streams.audio.views=[speed:0.9,speed:1.25]"], folder)
    assert parse(YAML(typ="safe", pure=True).load(text(values))).stream("audio").views == ("speed:0.9", "speed:1.25")

"""How predictions are shown."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.serving.prediction import Prediction, StreamUse
from pipeline.serving.show import bar, format_json, format_text, needle, spark
from pipeline.storage.feature_store import Status


@pytest.fixture
def prediction():
    return Prediction(
        path="my [red]clip[/red].mp4",
        duration=2.5,
        emotions={"joy": 0.7, "anger": 0.3},
        dimensions={"valence": 0.5, "arousal": -0.25},
        times=np.array([[0, 1], [1, 2.5]], np.float32),
        trace={"valence": np.array([0.4, 0.6]), "arousal": np.array([-0.3, -0.2])},
        streams={"video": StreamUse(Status.OK, 10), "audio": StreamUse(Status.MISSING, 0, "the file has no sound")},
        random=("video",),
        models=3,
    )


def shown(prediction, width=100):
    text = io.StringIO()
    Console(file=text, width=width).print(format_text(prediction))
    return text.getvalue()


def test_text_says_everything(prediction):
    text = shown(prediction)
    assert "my [red]clip[/red].mp4" in text  # a file name is not markup
    assert "joy" in text and "70.0%" in text and "+0.50" in text
    assert "without audio: the file has no sound" in text
    assert "random weights: video" in text and "mean of 3 models" in text


def test_text_without_what_the_model_has_not(prediction):
    plain = Prediction(**vars(prediction) | {"emotions": {}, "trace": {}, "random": ()})
    assert "joy" not in shown(plain) and "random" not in shown(plain) and "over time" not in shown(plain)


def test_json_round_trip(prediction):
    value = json.loads(format_json(prediction))
    assert list(value["emotions"]) == ["joy", "anger"] and value["valence"] == 0.5
    assert value["trace"] == {"start": [0, 1], "end": [1, 2.5], "valence": [0.4, 0.6], "arousal": [-0.3, -0.2]}
    assert value["streams"]["audio"] == {"status": "missing", "rows": 0, "reason": "the file has no sound", "share": None}
    assert value["random_weights"] == ["video"]


@given(st.floats(0, 1))
def test_bar_is_as_long_as_the_share(share):
    text = bar(share, 20)
    assert len(text) == 20
    assert abs(len(text.rstrip()) - share * 20) <= 1.0


@given(st.floats(-1, 1), st.integers(5, 60))
def test_needle_sits_at_the_value(value, width):
    text = needle(value, width)
    place = text.index("●") / (len(text) - 1) * 2 - 1
    assert abs(place - value) <= 1 / (len(text) - 1) + 1e-9


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=200))
def test_spark_is_monotone_and_bounded(values):
    text = spark(sorted(values), 20)
    assert len(text) == min(len(values), 20)
    assert list(text) == sorted(text)

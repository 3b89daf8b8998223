"""Labels across corpora."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import corpora, harmony
from pipeline.errors import CorpusError
from pipeline.storage import tables

#: Classes no other corpus has a counterpart of.
ALONE = {"boredom", "other", "frustrated", "doubt", "negative", "positive"}


@pytest.mark.parametrize("name", corpora.names())
def test_every_class_of_every_corpus_has_a_common_name_or_stands_alone(name):
    for label in corpora.find_adapter(name).classes:
        assert (harmony.emotion(label) in harmony.COMMON) or label in ALONE, label


def test_the_maps_are_sound():
    assert set(harmony.mapping("emotions").values()) == set(harmony.COMMON)
    assert len(harmony.FINE) == len(set(harmony.FINE)) == 27
    assert all(set(members) <= set(harmony.FINE) for members in harmony.mapping("goemotions").values())
    assert set(harmony.mapping("scales")) <= set(corpora.names())


@pytest.mark.parametrize("corpus", sorted(harmony.mapping("scales")))
@given(share=st.floats(0, 1))
def test_scales_go_there_and_back(corpus, share):
    low, high = harmony.scale(corpus)
    value = low + share * (high - low)
    unit = harmony.to_unit(value, corpus)
    assert -1 - 1e-9 <= unit <= 1 + 1e-9
    assert harmony.from_unit(unit, corpus) == pytest.approx(value, abs=1e-9)


def test_podcast_on_the_scale_of_iemocap():
    for value in (1, 2.5, 4, 7):
        assert harmony.between(value, "msp_podcast", "iemocap") == pytest.approx((value - 1) * 4 / 6 + 1)


def test_polarity_and_valence():
    for polarity in ("negative", "neutral", "positive"):
        assert harmony.sentiment(harmony.valence(polarity)) == polarity
    assert harmony.sentiment(0.05, margin=0.1) == "neutral"
    with pytest.raises(CorpusError, match="Unknown polarity 'negativ'. Did you mean 'negative'"):
        harmony.valence("negativ")


def test_goemotions_both_ways():
    assert harmony.basic(["disapproval"]) == {"anger", "disgust"}
    assert harmony.basic(["love", "grief"]) == {"joy", "sadness"}
    assert harmony.basic(["gratitude"]) == set() and harmony.basic(["neutral"]) == {"neutral"}
    assert harmony.fine("fear") == ("fear", "nervousness")
    with pytest.raises(CorpusError, match="Unknown GoEmotions label"):
        harmony.basic(["loves"])


def test_two_corpora_become_one_by_name():
    one = tables.frame(
        [
            {"id": "r/1", "corpus": "ravdess", "emotion": "happy", "speaker": "1"},
            {"id": "r/2", "corpus": "ravdess", "emotion": "disgust", "speaker": "2"},
        ]
    )
    two = tables.frame(
        [
            {"id": "m/1", "corpus": "meld", "emotion": "joy", "speaker": "1", "valence": 0.5},
            {"id": "m/2", "corpus": "emo_db", "emotion": "boredom", "speaker": None},
        ]
    )
    whole = harmony.harmonised(one, two, classes=("joy", "sadness"))
    assert whole["emotion"].to_list() == ["joy", None, "joy", None]
    assert whole["speaker"].to_list() == ["ravdess/1", "ravdess/2", "meld/1", None]
    with pytest.raises(CorpusError, match="r/1 is in two"):
        harmony.harmonised(one, one)
    with pytest.raises(CorpusError, match="Unknown common emotion 'happy'"):
        harmony.harmonised(one, classes=("happy",))

"""Labels across corpora."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import corpora, harmony
from pipeline.errors import CorpusError

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


@pytest.mark.parametrize("corpus", sorted(n for n in corpora.names() if harmony.scale(n) != (-1, 1)))
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


def test_a_fine_label_has_the_name_of_its_only_class():
    assert harmony.emotion("Annoyance") == "anger" and harmony.emotion("relief") == "joy"
    assert harmony.emotion("disapproval") is None, "of anger and of disgust"
    assert harmony.emotion("gratitude") is None


def test_goemotions_both_ways():
    assert harmony.basic(["disapproval"]) == {"anger", "disgust"}
    assert harmony.basic(["love", "grief"]) == {"joy", "sadness"}
    assert harmony.basic(["gratitude"]) == set() and harmony.basic(["neutral"]) == {"neutral"}
    assert harmony.fine("fear") == ("fear", "nervousness")
    with pytest.raises(CorpusError, match="Unknown GoEmotions label"):
        harmony.basic(["loves"])

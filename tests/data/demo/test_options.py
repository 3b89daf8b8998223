"""Mistakes in `corpus.options` are one line that names the key."""

from __future__ import annotations

import pytest

from pipeline.data.corpora import open_corpus
from pipeline.errors import ParamsError
from pipeline.params import Corpus


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"clipz": 3}, "clipz"),
        ({"size": 161}, "size"),
        ({"size": 8}, "size"),
        ({"fps": "fast"}, "fps"),
        ({"rate": 17000}, "rate"),
        ({"seed": -1}, "seed"),
        ({"ambiguity": 2}, "ambiguity"),
        ({"shortest": 3, "longest": 2}, "longest"),
        ({"shortest": 0.1}, "shortest"),
        ({"sessions": 4, "dialogues": 3}, "dialogues"),
        ({"no_text": 0.4, "no_sound": 0.2}, "no_sound"),
        ({"turns": 0}, "turns"),
    ],
)
def test_a_bad_option_is_one_line(values, named):
    with pytest.raises(ParamsError, match=named) as caught:
        open_corpus(Corpus(name="demo", root="x", options=values))
    assert "\n" not in str(caught.value)
    assert "corpus.options" in str(caught.value)

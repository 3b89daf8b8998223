"""Mistakes in `corpus.options` are one line that names the key."""

from __future__ import annotations

import pytest

from pipeline.data.demo.options import Options, parse
from pipeline.errors import ParamsError


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
        parse(values)
    assert "\n" not in str(caught.value)
    assert "corpus.options" in str(caught.value)


def test_the_default_configuration_is_the_default():
    assert parse({}) == Options()

"""Overlap of reasons, counted."""

import pytest

from pipeline.instruct.overlap import overlap, score_answer


def test_overlap_by_hand():
    true = "She is angry: her voice trembles and her brows are drawn."
    assert score_answer(true, true) == {"label": 10.0, "clue": 10.0}
    # Emotions: {anger} and {anger, sadness}. Clues: {voic, trembl} and {voic, trembl, brow, drawn}.
    found = score_answer("A trembling voice, angry and sad.", true)
    assert found == pytest.approx({"label": 20 * 1 / 3, "clue": 20 * 2 / 6})
    assert score_answer("", true) == {"label": 0.0, "clue": 0.0}
    assert overlap((), ()) == 10.0

"""Intervals and paired tests."""

import numpy as np
import pytest

from pipeline.evaluation import intervals


def test_interval_over_seeds_is_students():
    interval = intervals.over_seeds([0.6, 0.7, 0.8, 0.7, 0.7])
    half = 2.776445 * np.std([0.6, 0.7, 0.8, 0.7, 0.7], ddof=1) / np.sqrt(5)
    assert interval == pytest.approx((0.7, 0.7 - half, 0.7 + half), abs=1e-6)


def test_one_seed_has_no_interval():
    assert intervals.over_seeds([0.5]).rounded() == {"mean": 0.5, "low": None, "high": None}
    assert intervals.over_seeds([float("nan")]).rounded()["mean"] is None


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = [i.low <= 0 <= i.high for i in (intervals.over_seeds(rng.normal(size=5)) for _ in range(600))]
    assert 0.92 < np.mean(inside) < 0.98


def test_bootstrap_resamples_speakers_not_clips():
    """Clips of one speaker agree: the interval is as wide as four speakers make it, not forty clips."""
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 10)
    speakers = np.repeat(list("abcd"), 10)
    by_speaker = intervals.over_groups(lambda rows: values[rows].mean(), speakers, resamples=500)
    by_clip = intervals.over_groups(lambda rows: values[rows].mean(), [str(i) for i in range(40)], resamples=500)
    assert by_speaker.mean == by_clip.mean == 0.5
    assert by_speaker.high - by_speaker.low > 2 * (by_clip.high - by_clip.low)
    assert intervals.over_groups(lambda rows: values[rows].mean(), speakers, resamples=500) == by_speaker


def test_bootstrap_of_one_group_or_a_constant():
    assert np.isnan(intervals.over_groups(lambda rows: 1.0, ["a", "a"]).low)
    assert intervals.over_groups(lambda rows: 1.0, ["a", "b"], resamples=50).mean == 1.0


def test_paired_permutation():
    rng = np.random.default_rng(0)
    base = rng.normal(size=80)
    assert intervals.paired(base + 0.5 + 0.1 * rng.normal(size=80), base).p < 0.001
    assert intervals.paired(base + rng.normal(size=80), base).p > 0.01
    assert intervals.paired(base, base) == (0.0, 1.0)
    # All 2**3 sign patterns: only +++ and --- are as extreme.
    assert intervals.paired([1, 2, 3], [0, 0, 0]).p == pytest.approx(0.25)
    assert np.isnan(intervals.paired([np.nan], [1.0]).p)

"""Intervals that draw groups and seeds, and tests that swap groups: do they hold what they say?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline import metrics
from pipeline.errors import StoreError
from pipeline.evaluation import intervals
from pipeline.evaluation.intervals import Draws, Interval
from pipeline.evaluation.sums import Part

CLASSES = 4


def speakers(rng, groups, seeds, *, clips=24, apart=0.8, runs=0.15, suits=0.0):
    """(seeds, groups, K, K) confusion counts: speakers differ in how hard they are, runs in how good, clips in both."""
    level = 0.8 + rng.normal(0, apart, groups) + rng.normal(0, suits, groups) + rng.normal(0, runs, (seeds, 1))
    return decide(rng, level[:, :, None] + rng.normal(0, 0.7, (groups, clips)))


def decide(rng, level, *, by_clip=False):
    """Counts per group, or per clip with `by_clip`, of decisions that are right with the logistic of `level`."""
    truth = np.broadcast_to(np.arange(level.shape[-1]) % CLASSES, level.shape)
    right = rng.random(level.shape) < 1 / (1 + np.exp(-level))
    predicted = np.where(right, truth, (truth + rng.integers(1, CLASSES, level.shape)) % CLASSES)
    counts = np.zeros((*level.shape, CLASSES, CLASSES))
    np.put_along_axis(counts.reshape(*level.shape, -1), (truth * CLASSES + predicted)[..., None], 1, -1)
    return counts.reshape(len(level), -1, CLASSES, CLASSES) if by_clip else counts.sum(2)


def uar_of(counts, draws=600) -> Interval:
    part = Part(counts, metrics.of_confusion)
    return intervals.estimate([part], Draws.of(counts.shape[1], len(counts), draws=draws))["uar"]


@pytest.mark.parametrize("groups, seeds", [(18, 3), (8, 2), (24, 5)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(groups, seeds):
    rng = np.random.default_rng(0)
    truth = metrics.uar(speakers(rng, 6000, 40).sum((0, 1)))
    inside, alone = [], []
    for _ in range(150):
        counts = speakers(rng, groups, seeds)
        found = uar_of(counts)
        inside.append(found.low <= truth <= found.high)
        values = metrics.uar(counts.sum(1))
        half = stats.t.ppf(0.975, seeds - 1) * values.std(ddof=1) / np.sqrt(seeds)
        alone.append(abs(values.mean() - truth) <= half)
    assert 0.91 <= np.mean(inside) <= 1
    if seeds > 2:
        assert np.mean(alone) < 0.88, "seeds alone leave out which speakers were tested"


def test_the_interval_draws_speakers_not_clips_and_seeds_as_well():
    """Speakers wholly right or wholly wrong: four clips of each tell no more than one."""
    rng = np.random.default_rng(1)
    one = decide(rng, np.where(np.arange(12) % 2, 50.0, -50.0)[None, :, None] + np.zeros((1, 12, 4)))
    split = one.reshape(1, 12, 1, CLASSES, CLASSES) / 4 * np.ones((1, 1, 4, 1, 1))
    by_speaker, by_clip = uar_of(one), uar_of(split.reshape(1, 48, CLASSES, CLASSES))
    assert by_speaker.mean == by_clip.mean == 0.5
    assert by_speaker.high - by_speaker.low > 1.7 * (by_clip.high - by_clip.low)
    same = speakers(np.random.default_rng(2), 30, 1, apart=0)
    other = np.concatenate([same, np.flip(same, -1), same])
    assert uar_of(other).high - uar_of(other).low > 2 * (uar_of(same).high - uar_of(same).low)
    assert uar_of(other) == uar_of(other), "the same bytes every time"


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 12), st.integers(1, 4), st.integers(0, 10**6), st.floats(-8, 8))
def test_bounds_never_leave_the_range_of_the_metric(groups, seeds, seed, level):
    rng = np.random.default_rng(seed)
    counts = decide(rng, np.full((seeds, groups, 3), level))
    y = rng.uniform(-1, 1, (seeds, groups, 4))
    moments = metrics.moments(y, y * rng.uniform(-1, 1) + rng.normal(0, 0.1, y.shape)).reshape(seeds, groups, 4, 9).sum(2)
    found = intervals.estimate(
        [Part(counts, metrics.of_confusion), Part(moments, metrics.of_moments)], Draws.of(groups, seeds, draws=100)
    )
    for name, one in found.items():
        low, high = (-1, 1) if name in metrics.CORRELATIONS else (0, np.inf if name in ("rmse", "mse") else 1)
        assert low - 1e-9 <= one.low <= one.mean <= one.high <= high + 1e-9, name
        assert not one.ranged


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_few_speakers_have_a_range_and_no_interval(groups):
    counts = speakers(np.random.default_rng(3), groups, 2)
    found = uar_of(counts)
    single = metrics.uar(counts)
    assert not found.bounded and (found.least, found.most) == pytest.approx((single.min(), single.max()))
    assert found.rounded()["low"] is None and found.rounded()["mean"] == pytest.approx(metrics.uar(counts.sum(1)).mean())
    part = Part(counts, metrics.of_confusion)
    compared = intervals.compare((part, Draws.of(groups, 2)), (part, Draws.of(groups, 2)), "uar")
    assert np.isnan(compared.p) and not compared.difference.bounded


def test_one_speaker_and_one_seed_have_neither():
    found = uar_of(speakers(np.random.default_rng(4), 1, 1))
    assert not found.bounded and not found.ranged


def test_each_class_has_its_own_interval():
    counts = speakers(np.random.default_rng(5), 9, 2)
    part = Part(counts, metrics.per_class)
    found = intervals.estimate_each([part], Draws.of(9, 2, draws=200))["recall"]
    assert [one.mean for one in found] == pytest.approx(metrics.recall(counts.sum(1)).mean(0))
    assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in found)


def test_a_class_of_one_speaker_is_left_out_where_that_speaker_is_not_drawn():
    counts = np.zeros((1, 6, 2, 2))
    counts[0, :, 0, 0], counts[0, 0, 1] = 4, (0, 4)
    recall = Part(counts, lambda matrix: {"recall": metrics.recall(matrix)})
    found = intervals.estimate_each([recall], Draws.of(6, 1, draws=200))["recall"]
    assert (found[1].low, found[1].mean, found[1].high) == (1, 1, 1)


def test_fewer_groups_are_wider():
    """Percentiles further out: with five groups nearly the extremes (Hesterberg 2015)."""
    drawn = np.random.default_rng(6).normal(size=20000)
    low, high = intervals.find_bounds(drawn, 10**6)
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.06)
    assert intervals.find_bounds(drawn, 5)[1] == pytest.approx(stats.t.ppf(0.975, 4) * np.sqrt(5 / 4), abs=0.3)


def variants(rng, groups, *, gain=0.0, suits=0.6, seeds=2, clips=24, by_clip=False):
    """Two variants on the same clips, each of which suits other speakers: clips of one speaker differ together."""
    level = 0.8 + rng.normal(0, 0.8, (groups, 1)) + rng.normal(0, 0.7, (groups, clips))
    both = []
    for number, plus in enumerate((gain, 0.0)):
        counts = decide(rng, level + plus + rng.normal(0, suits, (groups, 1)) + np.zeros((seeds, 1, 1)), by_clip=by_clip)
        both.append((Part(counts, metrics.of_confusion), Draws.of(counts.shape[1], seeds, draws=300, variant=number)))
    return both


def test_two_variants_that_are_the_same_are_told_apart_by_groups_as_rarely_as_said_and_by_clips_too_often():
    rng = np.random.default_rng(7)
    found = [intervals.compare(*variants(rng, 12), "uar", swaps=399) for _ in range(150)]
    assert np.mean([one.p <= 0.05 for one in found]) <= 0.09
    assert np.mean([one.difference.low <= 0 <= one.difference.high for one in found]) >= 0.92
    by_clip = [intervals.compare(*variants(rng, 12, by_clip=True), "uar", swaps=199).p for _ in range(60)]
    assert np.mean(np.array(by_clip) <= 0.05) > 0.12


def test_a_better_variant_is_found_and_its_difference_covered():
    first, second = variants(np.random.default_rng(8), 20, gain=1.5)
    found = intervals.compare(first, second, "uar")
    back = intervals.compare(second, first, "uar")
    assert found.p < 0.01 and 0 < found.difference.low < found.difference.mean < found.difference.high <= 1
    assert back.difference.mean == pytest.approx(-found.difference.mean) and back.p == pytest.approx(found.p, abs=0.01)


def test_all_swaps_are_counted_when_they_are_few():
    """Five speakers, each wholly right by one and wholly wrong by the other: only all swaps or none are as extreme."""
    right, wrong = np.zeros((1, 5, 2, 2)), np.zeros((1, 5, 2, 2))
    right[..., 0, 0] = right[..., 1, 1] = wrong[..., 0, 1] = wrong[..., 1, 0] = 3
    sides = [(Part(counts, metrics.of_confusion), Draws.of(5, 1)) for counts in (right, wrong)]
    found = intervals.compare(*sides, "accuracy")
    assert found == (Interval(1, 1, 1), 2 / 2**5)
    assert intervals.compare(sides[0], sides[0], "accuracy") == (Interval(0, 0, 0), 1)


def test_a_variant_without_seeds_is_the_same_for_every_seed():
    rng = np.random.default_rng(9)
    many, single = speakers(rng, 6, 3), speakers(rng, 6, 1)
    repeated = np.repeat(single, 3, 0)
    sides = [(Part(counts, metrics.of_confusion), Draws.of(6, len(counts))) for counts in (many, single, repeated)]
    assert intervals.compare(sides[0], sides[1], "uar").p == intervals.compare(sides[0], sides[2], "uar").p
    assert intervals.compare(sides[1], sides[0], "uar").p == intervals.compare(sides[2], sides[0], "uar").p


def test_variants_of_unequal_seeds_are_one_line():
    rng = np.random.default_rng(9)
    sides = [(Part(speakers(rng, 6, n), metrics.of_confusion), Draws.of(6, n)) for n in (2, 3)]
    with pytest.raises(StoreError, match="unequal numbers of seeds"):
        intervals.compare(*sides, "uar")

"""Metrics against published oracles, scikit-learn and audmetric."""

import audmetric
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pipeline import metrics

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def test_recall_oracle_with_a_class_that_is_predicted_but_absent():
    truth, predicted = [0, 1, 2, 2, 0, 1], [0, 1, 2, 3, 0, 1]
    matrix = metrics.confusion(truth, predicted, 4)
    assert metrics.accuracy(matrix) == pytest.approx(0.8333, abs=1e-4)
    assert metrics.uar(matrix, strict=True) == pytest.approx(0.625)
    assert metrics.uar(matrix) == pytest.approx(0.8333, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_classification_agrees_with_other_implementations(pairs):
    truth, predicted = (list(x) for x in zip(*pairs, strict=True))
    values, labels = metrics.classification(truth, predicted, 4), sorted({*truth, *predicted})
    matrix = metrics.confusion(truth, predicted, 4)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, predicted, labels=range(4)))
    assert values["accuracy"] == values["micro_f1"] == pytest.approx(audmetric.accuracy(truth, predicted))
    assert values["uar"] == pytest.approx(sk.recall_score(truth, predicted, labels=sorted(set(truth)), average="macro"))
    assert values["uar_strict"] == pytest.approx(
        audmetric.unweighted_average_recall(truth, predicted, labels=labels, zero_division=0)
    )
    assert values["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro", zero_division=0))
    assert values["macro_f1_zero"] == pytest.approx(
        sk.f1_score(truth, predicted, labels=range(4), average="macro", zero_division=0)
    )
    assert values["weighted_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="weighted", zero_division=0))
    parts = metrics.per_class(matrix)
    expected = sk.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0)
    for name, wanted in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(parts[name], wanted)


def test_rows_without_truth_take_no_part():
    assert metrics.classification([-1, 0, 1], [1, 0, 1], 2) == metrics.classification([0, 1], [0, 1], 2)
    assert metrics.ccc([np.nan, 0.1, 0.5, 0.2], [3, 0.2, 0.4, np.nan]) == metrics.ccc([0.1, 0.5], [0.2, 0.4])
    assert np.isnan(metrics.accuracy(metrics.confusion([-1], [0], 2)))
    assert all(np.isnan(v) for v in metrics.regression([np.nan], [0.0]).values())


def test_concordance_oracle():
    y, p = (-0.5, -0.2, 0, 0.3, 0.6), (-0.4, -0.1, 0.1, 0.2, 0.4)
    assert metrics.ccc(y, p) == pytest.approx(0.927536, abs=1e-6)
    assert metrics.ccc(y, y) == pytest.approx(1)


def test_regression_agrees_with_audmetric():
    rng = np.random.default_rng(0)
    for _ in range(10):
        y, p = rng.uniform(-1, 1, (2, 30))
        assert metrics.ccc(y, p) == pytest.approx(audmetric.concordance_cc(y, p))
        assert metrics.regression(y, p)["pcc"] == pytest.approx(audmetric.pearson_cc(y, p))
        assert metrics.regression(y, p)["rmse"] == pytest.approx(np.sqrt(audmetric.mean_squared_error(y, p)))


def test_constants_correlate_with_nothing():
    assert metrics.regression([1, 2, 3], [0.1, 0.1, 0.1])["pcc"] == 0
    assert metrics.ccc([0.1, 0.1], [0.1, 0.1]) == 0


def test_icc_is_that_of_an_analysis_of_variance():
    """ICC(3,1) of Shrout and Fleiss from its mean squares: raters are truth and prediction, subjects the rows."""
    y, p = np.random.default_rng(1).normal(size=(2, 40)) + np.array([[0.0], [3.0]])
    both = np.stack([y, p], 1)
    between = 2 * ((both.mean(1) - both.mean()) ** 2).sum() / 39
    rest = ((both - both.mean(1, keepdims=True) - both.mean(0) + both.mean()) ** 2).sum() / 39
    found = metrics.regression(y, p)
    assert found["icc"] == pytest.approx((between - rest) / (between + rest))
    assert metrics.regression(y, y + 3)["icc"] == pytest.approx(1) and metrics.regression(y, y + 3)["ccc"] < 1
    assert found["mse"] == pytest.approx(found["rmse"] ** 2)


def test_sign_agreement_has_three_signs():
    assert metrics.regression([0, 0, -0.5, 0.5], [0, 0.1, -0.1, -0.1])["sagr"] == 0.5


def test_calibration_of_a_known_case():
    p = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    error, bins = metrics.calibration([0, 0, 0, 1, 1, 0], p)
    assert error == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.1)
    assert [b["count"] for b in bins] == [2, 4]


def test_mean_per_clip_is_not_the_pooled_value():
    truth, predicted = [0, 0.1, 0.2, 0.8, 0.9, 1, 0.3, 0.4, 0.4], [0.2, 0.1, 0, 1, 0.9, 0.8, 0.3, 0.1, 0.2]
    rows = metrics.moments(truth, predicted)
    clips = np.stack([rows[:3].sum(0), rows[3:6].sum(0), rows[6:7].sum(0), rows[7:].sum(0)])
    # One row, and constant truth: two clips take no part.
    found = metrics.clip_figures(clips)
    for name in ("ccc", "pcc", "icc"):
        np.testing.assert_allclose(found[name], [[-1, 1], [-1, 1], [0, 0], [0, 0]])
    np.testing.assert_allclose(found["mse"], [[0.08 / 3, 1], [0.08 / 3, 1], [0, 1], [0.065, 1]])
    np.testing.assert_allclose(found["rmse"][:, 0] ** 2, found["mse"][:, 0])
    assert metrics.is_constant(clips).tolist() == [False, False, True, True] and metrics.is_constant(np.zeros(9))
    assert metrics.ccc(truth, predicted) > 0.7


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), min_size=1, max_size=30))
def test_bounds_and_identities_of_regression(pairs):
    y, p = np.array(pairs).T
    values = metrics.regression(y, p)
    assert -1 - 1e-9 <= values["ccc"] <= 1 + 1e-9 and 0 <= values["sagr"] <= 1
    assert abs(values["ccc"]) <= abs(values["pcc"]) + 1e-6, "Lin: |CCC| is at most |PCC|"
    assert values["rmse"] == pytest.approx(np.sqrt(np.mean((y - p) ** 2)), abs=1e-12)
    assert metrics.ccc(y, y) == pytest.approx(1 if np.ptp(y) > 1e-6 else metrics.ccc(y, y))
    assert metrics.ccc(p, y) == pytest.approx(values["ccc"], abs=1e-9), "CCC is symmetric"


@settings(max_examples=60, deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=4))
def test_a_stack_of_matrices_is_each_of_them(sets):
    matrices = [metrics.confusion(*zip(*pairs, strict=True), 4) for pairs in sets]
    stacked = metrics.of_confusion(np.stack(matrices)) | metrics.per_class(np.stack(matrices))
    for i, matrix in enumerate(matrices):
        for name, value in (metrics.of_confusion(matrix) | metrics.per_class(matrix)).items():
            np.testing.assert_allclose(stacked[name][i], value)
            assert name == "support" or np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 2), st.lists(st.floats(0.01, 1), min_size=3, max_size=3)), min_size=1, max_size=30))
def test_calibration_is_its_definition(rows):
    truth = np.array([t for t, _ in rows])
    p = np.array([np.array(v) / sum(v) for _, v in rows])
    error, bins = metrics.calibration(truth, p)
    known = truth >= 0
    if not known.any():
        assert np.isnan(error) and not bins
        return
    sure, right = p[known].max(1), p[known].argmax(1) == truth[known]
    place = np.minimum((sure * metrics.BINS).astype(int), metrics.BINS - 1)
    expected = sum(abs(sure[place == b].sum() - right[place == b].sum()) for b in range(metrics.BINS)) / known.sum()
    assert error == pytest.approx(expected, abs=1e-9) and 0 <= error <= 1


def test_unknown_absent_option():
    with pytest.raises(ValueError, match="absent"):
        metrics.macro_f1(np.eye(2), absent="maybe")

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from stepcredit.stats import (
    auc,
    average_precision,
    clustered_auc_parts,
    f1,
    fit_log_odds,
    midranks,
    pearson,
    reliability,
    sigmoid,
    spearman,
)

items = st.lists(
    st.tuples(st.sampled_from([-2.0, 0.0, 0.5, 0.5, 1.0, 7.0]), st.booleans()), min_size=2, max_size=30
)


def split(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in pairs]), np.array([positive for _, positive in pairs])


@given(items)
def test_auc_counts_pairs_with_ties_half(pairs: list[tuple[float, bool]]) -> None:
    scores, positive = split(pairs)
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[positive] for b in scores[~positive]]
    if wins:
        assert auc(scores, positive) == pytest.approx(sum(wins) / len(wins))
        parts = clustered_auc_parts(scores, positive)
        assert parts[positive].mean() == pytest.approx(auc(scores, positive))
        assert parts[~positive].mean() == pytest.approx(auc(scores, positive))
    else:
        assert math.isnan(auc(scores, positive))


@given(items)
def test_average_precision_is_sklearns(pairs: list[tuple[float, bool]]) -> None:
    scores, positive = split(pairs)
    if positive.any():
        expected = metrics.average_precision_score(positive, scores)
        assert average_precision(scores, positive) == pytest.approx(expected)
    else:
        assert math.isnan(average_precision(scores, positive))


def test_midranks_share_the_places_of_ties() -> None:
    np.testing.assert_allclose(midranks(np.array([3.0, 1.0, 3.0, 2.0])), [3.5, 1.0, 3.5, 2.0])


def test_reliability_by_hand() -> None:
    # Bin [0, .5): .2 and .4, one of two right; bin [.5, 1]: .9 and 1.0, both right.
    bins = reliability(np.array([0.2, 0.4, 0.9, 1.0]), np.array([0, 1, 1, 1]), num_bins=2)
    np.testing.assert_array_equal(bins.counts, [2, 2])
    np.testing.assert_allclose(bins.predicted, [0.3, 0.95])
    np.testing.assert_allclose(bins.observed, [0.5, 1.0])
    assert bins.error == pytest.approx((2 * 0.2 + 2 * 0.05) / 4)
    assert bins.brier == pytest.approx((0.04 + 0.36 + 0.01 + 0.0) / 4)


def test_empty_bins_are_nan_and_count_nothing() -> None:
    bins = reliability(np.array([0.05]), np.array([1]), num_bins=10)
    assert np.isnan(bins.predicted[1:]).all()
    assert bins.error == pytest.approx(0.95)


def test_probabilities_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        reliability(np.array([1.2]), np.array([1]))


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_allclose(
        sigmoid(np.array([-1e4, -1.0, 0.0, 1.0, 1e4])), [0, 0.26894142, 0.5, 0.73105858, 1]
    )


def test_calibration_is_logistic_regression() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(3.0, 2.0, 4000)
    outcomes = generator.random(4000) < sigmoid(0.8 * scores - 2.0)
    reference = LogisticRegression(C=1e9).fit(scores[:, None], outcomes)
    slope, intercept = fit_log_odds(scores, outcomes)
    assert slope == pytest.approx(float(reference.coef_[0, 0]), abs=5e-3)
    assert intercept == pytest.approx(float(reference.intercept_[0]), abs=1e-2)


@pytest.mark.parametrize("outcomes", [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_calibration_stays_finite_where_classes_are_apart_or_missing(outcomes: list[int]) -> None:
    slope, intercept = fit_log_odds(np.array([-1.0, -0.5, 0.5, 1.0]), np.array(outcomes))
    assert math.isfinite(slope)
    assert math.isfinite(intercept)


def test_correlations() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 16.0])
    assert pearson(first, second) == pytest.approx(float(np.corrcoef(first, second)[0, 1]))
    assert spearman(first, second) == pytest.approx(1.0)
    assert math.isnan(pearson(first, np.ones(4)))


def test_f1_of_nothing_is_zero() -> None:
    assert f1(0.0, 0.0) == 0.0
    assert f1(0.5, 1.0) == pytest.approx(2 / 3)

import numpy as np
import pytest

from stepcredit.stats import ProblemBootstrap


def test_draws_are_those_of_problems_with_replacement() -> None:
    bootstrap = ProblemBootstrap(7, num_draws=3000, seed=1)
    counts = bootstrap.counts(0, 3000)
    assert counts.shape == (7, 3000)
    assert (counts.sum(axis=0) == 7).all()
    # Each problem is in a draw once on average, with binomial variance 6/7.
    np.testing.assert_allclose(counts.mean(axis=1), 1.0, atol=0.08)
    np.testing.assert_allclose(counts.var(), 6 / 7, atol=0.03)


def test_intervals_equal_those_of_explicit_resampling() -> None:
    values = np.random.default_rng(0).random((5, 40))
    bootstrap = ProblemBootstrap(40, num_draws=2500, seed=2)
    low, high = bootstrap.intervals(values)
    counts = bootstrap.counts(0, 2500)
    for row in range(5):
        means = [np.repeat(values[row], counts[:, draw]).mean() for draw in range(2500)]
        np.testing.assert_allclose([low[row], high[row]], np.quantile(means, [0.025, 0.975]), atol=1e-12)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(30)
    first, second, other = (
        ProblemBootstrap(30, num_draws=500, seed=seed).interval(values) for seed in (3, 3, 4)
    )
    assert first == second
    assert first.low != other.low


def test_paired_intervals_use_the_same_draws_for_both() -> None:
    values = np.random.default_rng(0).random((3, 50))
    bootstrap = ProblemBootstrap(50, num_draws=800)
    pairs = np.array([[0, 1], [2, 0]])
    low, high = bootstrap.paired_intervals(values, pairs)
    expected = bootstrap.intervals(np.stack([values[0] - values[1], values[2] - values[0]]))
    np.testing.assert_allclose([low, high], expected, atol=1e-12)


def test_a_constant_has_an_interval_without_width() -> None:
    interval = ProblemBootstrap(20, num_draws=200).interval(np.ones(20))
    assert (interval.estimate, interval.low, interval.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("num_problems", [50, 200])
def test_intervals_cover_the_truth_as_often_as_they_say(num_problems: int) -> None:
    """Accuracies of problems as they come: many near 0 or 1, the true mean is 2 / 5."""
    generator = np.random.default_rng(5)
    bootstrap = ProblemBootstrap(num_problems, num_draws=1000)
    values = generator.beta(0.4, 0.6, (600, num_problems))
    low, high = bootstrap.intervals(values)
    covered = ((low <= 0.4) & (high >= 0.4)).mean()
    assert 0.92 <= covered <= 0.975  # 95% less what the percentile bootstrap loses at 50, and 2 errors


def test_paired_intervals_cover_the_true_difference() -> None:
    generator = np.random.default_rng(6)
    difficulty = generator.random((400, 60))
    first = generator.random((400, 60)) < 0.7 * difficulty
    second = generator.random((400, 60)) < 0.5 * difficulty
    bootstrap = ProblemBootstrap(60, num_draws=1000)
    covered = 0
    for one, two in zip(first, second, strict=True):
        low, high = bootstrap.paired_intervals(np.stack([one, two]).astype(float), np.array([[0, 1]]))
        covered += low[0] <= 0.1 <= high[0]
    assert 0.92 <= covered / 400 <= 0.98


def test_a_ratio_is_of_sums_and_leaves_out_draws_without_denominator() -> None:
    bootstrap = ProblemBootstrap(3, num_draws=2000)
    interval = bootstrap.ratio_interval(np.array([1.0, 1.0, 0.0]), np.array([2.0, 2.0, 0.0]))
    assert (interval.estimate, interval.low, interval.high) == (0.5, 0.5, 0.5)
    assert np.isnan(bootstrap.ratio_interval(np.zeros(3), np.zeros(3)).estimate)


def test_no_problem_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        ProblemBootstrap(0)


def test_one_problem_does_not_show_how_much_problems_differ() -> None:
    alone = ProblemBootstrap(1, num_draws=200)
    interval = alone.interval(np.array([0.3]))
    assert interval.estimate == 0.3
    assert np.isnan([interval.low, interval.high]).all()
    assert np.isnan(alone.paired_intervals(np.array([[0.3], [0.1]]), np.array([[0, 1]]))).all()
    several = ProblemBootstrap(3, num_draws=200)
    ratio = several.ratio_interval(np.array([1.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]))
    assert ratio.estimate == 0.5
    assert np.isnan([ratio.low, ratio.high]).all()
    assert np.isnan(several.quantiles(np.arange(200.0), np.array([4, 0, 0]))).all()
    assert several.quantiles(np.arange(200.0), np.array([4, 1, 0])) == pytest.approx((4.975, 194.025))

import math

import numpy as np
import pytest
from scipy import integrate, stats

from stepcredit.stats import holm, paired_p_values, student_quantile
from stepcredit.stats.significance import student_t_two_sided


def density(x: float, degrees: int) -> float:
    """Of Student's t, from its definition."""
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return math.exp(log_scale - (degrees + 1) / 2 * math.log1p(x * x / degrees))


@pytest.mark.parametrize("degrees", [2, 9, 199])
@pytest.mark.parametrize("statistic", [0.0, 0.3, -1.96, 4.0])
def test_students_t_is_the_area_under_both_tails(statistic: float, degrees: int) -> None:
    inner, _ = integrate.quad(density, 0.0, abs(statistic), args=(degrees,), epsabs=1e-13)
    p_value = student_t_two_sided(np.array([statistic]), degrees)[0]
    assert p_value == pytest.approx(1 - 2 * inner, rel=1e-9)


@pytest.mark.parametrize(
    ("degrees", "printed"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)],
)
def test_students_quantile_is_that_of_printed_tables(degrees: int, printed: float) -> None:
    assert student_quantile(degrees) == pytest.approx(printed, abs=5e-4)
    assert student_t_two_sided(np.array([student_quantile(degrees)]), degrees)[0] == pytest.approx(0.05)


def test_paired_p_values_are_those_of_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 4, 30))
    expected = [stats.ttest_rel(a, b).pvalue for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(paired_p_values(first - second), expected, rtol=1e-8)


def test_a_few_problems_that_agree_prove_nothing() -> None:
    assert paired_p_values(np.ones((1, 3)))[0] == 0.25
    assert paired_p_values(np.array([[0.5, 0.5001, 0.5]]))[0] == 0.25
    assert np.isnan(paired_p_values(np.ones((1, 1)))[0])


def test_methods_that_never_differ_have_a_p_value_of_one() -> None:
    assert paired_p_values(np.zeros((1, 50)))[0] == 1.0


def test_rounding_is_no_difference() -> None:
    # What sums of the same numbers in another order leave.
    rounding = 1e-16 * np.random.default_rng(3).integers(0, 2, size=(1, 200))
    assert paired_p_values(rounding)[0] == 1.0


def test_under_the_null_small_p_values_are_rare() -> None:
    generator = np.random.default_rng(1)
    differences = (generator.random((2000, 40)) < 0.5).astype(float) - (generator.random((2000, 40)) < 0.5)
    assert 0.03 < (paired_p_values(differences) < 0.05).mean() < 0.07


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, made non-decreasing: .04 .06 .06 .06.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert holm(np.array([])).shape == (0,)


def test_holm_keeps_the_chance_of_any_false_rejection() -> None:
    generator = np.random.default_rng(2)
    any_rejected = [(holm(generator.random(10)) <= 0.05).any() for _ in range(2000)]
    assert np.mean(any_rejected) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)

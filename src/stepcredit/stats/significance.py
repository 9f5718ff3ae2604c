"""Paired tests of two methods on the same problems, and Holm's correction for many of them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

_MOST_FRACTION_TERMS = 300


def paired_p_values(differences: Float[np.ndarray, "pairs problems"]) -> Float[np.ndarray, " pairs"]:
    """Two-sided p-values of "the mean difference is zero": Student's paired t test over problems.

    No value is below ``2 ** (1 - problems)``, the least that swapping the two methods' names on any set of
    problems could give; so a handful of problems that agree by chance proves nothing. Pairs that agree on
    every problem get 1.
    """
    differences = np.asarray(differences, dtype=np.float64)
    num_problems = differences.shape[1]
    least = 2.0 ** (1 - num_problems)
    means = differences.mean(axis=1)
    if num_problems < 2:
        return np.ones(len(differences))
    errors = differences.std(axis=1, ddof=1) / math.sqrt(num_problems)
    # Differences that are equal up to rounding have no spread to test against.
    constant = errors <= 1e-12 * np.abs(differences).max(axis=1, initial=0.0)
    p_values = np.empty(len(differences))
    for pair, (mean, error) in enumerate(zip(means, errors, strict=True)):
        if constant[pair]:
            p_values[pair] = 1.0 if mean == 0.0 else least
        else:
            p_values[pair] = max(least, student_t_two_sided(float(mean / error), num_problems - 1))
    return p_values


def student_t_two_sided(statistic: float, degrees: int) -> float:
    """P(|T| >= |statistic|) for Student's t with ``degrees`` degrees of freedom, at least 1."""
    return regularised_incomplete_beta(degrees / (degrees + statistic**2), degrees / 2.0, 0.5)


def regularised_incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) for x in [0, 1] and a, b > 0, by Lentz's continued fraction (DLMF 8.17.22)."""
    if not 0.0 <= x <= 1.0:
        raise ValueError(f"x must be in [0, 1]; got {x}")
    if x in (0.0, 1.0):
        return x
    # The fraction converges fast below the mean; the symmetry I_x(a, b) = 1 - I_{1-x}(b, a) does the rest.
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - regularised_incomplete_beta(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    numerator, denominator = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    fraction = denominator
    for term in range(1, _MOST_FRACTION_TERMS):
        even = term * (b - term) * x / ((a + 2 * term - 1.0) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1.0))
        change = 1.0
        for coefficient in (even, odd):
            denominator = 1.0 / _away_from_zero(1.0 + coefficient * denominator, tiny)
            numerator = _away_from_zero(1.0 + coefficient / numerator, tiny)
            change = numerator * denominator
            fraction *= change
        if abs(change - 1.0) < 1e-15:
            break
    return math.exp(log_front) / a * fraction


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Holm's (1979) adjusted p-values: rejecting those up to alpha errs at all with at most that chance."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result

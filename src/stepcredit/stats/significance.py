"""Paired tests of two methods on the same problems, and Holm's correction for many of them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

_ROUNDING = 1e-12
"""Shares of problems, which are at most 1, that differ by less are equal."""


def paired_p_values(differences: Float[np.ndarray, "pairs problems"]) -> Float[np.ndarray, " pairs"]:
    """Two-sided p-values of "the mean difference is zero": Student's paired t test over problems.

    The differences are of shares, such as each problem's accuracy; what is only rounding counts as none.
    No value is below ``2 ** (1 - problems)``, the least that swapping the two methods' names on any set of
    problems could give; so a handful of problems that agree by chance proves nothing. Pairs that agree on
    every problem get 1; with a single problem there is no test, and the value is NaN.
    """
    differences = np.asarray(differences, dtype=np.float64)
    differences = np.where(np.abs(differences) < _ROUNDING, 0.0, differences)
    num_problems = differences.shape[1]
    least = 2.0 ** (1 - num_problems)
    means = differences.mean(axis=1)
    if num_problems < 2:
        return np.full(len(differences), np.nan)
    errors = differences.std(axis=1, ddof=1) / math.sqrt(num_problems)
    # Differences that are equal up to rounding have no spread to test against.
    constant = errors <= _ROUNDING * np.abs(differences).max(axis=1, initial=0.0)
    p_values = np.where(means == 0.0, 1.0, least)
    varies = ~constant
    tested = student_t_two_sided(means[varies] / errors[varies], num_problems - 1)
    p_values[varies] = np.maximum(least, tested)
    return p_values


def student_t_two_sided(statistics: Float[np.ndarray, " tests"], degrees: int) -> Float[np.ndarray, " tests"]:
    """P(|T| >= |statistic|) for Student's t with ``degrees`` degrees of freedom, at least 1."""
    # Imported here: half a second, and only comparisons need it.
    from scipy.special import stdtr

    return np.asarray(2.0 * stdtr(degrees, -np.abs(statistics)))


def student_quantile(degrees: int) -> float:
    """The t that Student's statistic stays within, on both sides, with probability 0.95."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Holm's (1979) adjusted p-values: rejecting those up to alpha errs at all with at most that chance."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result

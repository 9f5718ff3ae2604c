"""Made-up results of a demo."""

from __future__ import annotations

from stepcredit.evaluation.localisation import Localisation
from stepcredit.evaluation.results import Comparison, Result
from stepcredit.reports.summary import PolicyFindings, RewardHistogram
from stepcredit.stats import Interval

METHODS = (
    ("pass", None, None),
    ("majority", None, None),
    ("best-of-n", "reference-log-probability", "reward"),
    ("best-of-n", "implicit-prm", "min"),
    ("best-of-n", "implicit-prm", "sum"),
    ("weighted-sigmoid", "implicit-prm", "min"),
)


def localisation(auc: Interval) -> Localisation:
    return Localisation(
        auc=auc,
        lowest_is_first_wrong=Interval(0.7654, 0.7, 0.8),
        minimum_is_last=Interval(0.1357, 0.1, 0.2),
        num_right_steps=70,
        num_first_wrong_steps=30,
        by_position=(),
    )


def policy(offset: float = 0.0) -> PolicyFindings:
    """Made-up results, every number different."""
    results = tuple(
        Result(
            method=method,
            scorer=scorer,
            aggregate=aggregate,
            n=n,
            accuracy=0.3 + 0.05 * row + 0.011 * column + offset,
            low=0.2 + 0.05 * row + 0.011 * column + offset,
            high=0.4 + 0.05 * row + 0.011 * column + offset,
            resampling_error=0.0,
        )
        for row, (method, scorer, aggregate) in enumerate(METHODS)
        for column, n in enumerate((1, 4, 16, 64))
    )
    return PolicyFindings(
        num_problems=173,
        num_responses=64,
        distinct_mean=5.25,
        results=results,
        comparisons=(
            Comparison(
                n=16,
                first="majority",
                second="best-of-n/implicit-prm/min",
                difference=-0.1234,
                low=-0.2345,
                high=-0.0321,
                p_value=0.01,
                p_holm=0.02,
            ),
        ),
        steps=localisation(Interval(0.97531, 0.96, 0.98)),
        reference_steps=localisation(Interval(0.6789, 0.6, 0.7)),
        rewards=RewardHistogram(edges=(-2.0, 0.0, 2.0), right=(7, 63), first_wrong=(29, 1)),
    )

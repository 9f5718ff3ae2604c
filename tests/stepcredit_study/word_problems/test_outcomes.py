from __future__ import annotations

from stepcredit.stats import Interval
from stepcredit_study.analyses.within_problem import as_list


def test_what_has_no_estimate_or_no_interval_is_not_reported() -> None:
    nothing = float("nan")
    assert as_list(Interval(nothing, nothing, nothing)) is None
    assert as_list(Interval(0.5, nothing, nothing)) is None
    assert as_list(Interval(0.5, 0.4, 0.6)) == [0.5, 0.4, 0.6]

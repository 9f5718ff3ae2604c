from __future__ import annotations

from dataclasses import replace

import pytest
from tests.reports.made_up import policy
from tests.reports.pages import parse

from stepcredit.evaluation.results import Comparison, Result
from stepcredit.reports.choosing import (
    LOWEST_STEP,
    MAJORITY,
    SINGLE,
    SUM_OF_STEPS,
    accuracy_curves,
    choosers_legend,
    difference_of,
    policy_table,
)
from stepcredit.reports.summary import PolicyFindings
from stepcredit.stats import Interval


def best_of(n: int, accuracy: float, aggregate: str = "min") -> Result:
    return made_up("best-of-n", n, accuracy, scorer="implicit-prm", aggregate=aggregate)


def majority(n: int, accuracy: float) -> Result:
    return made_up("majority", n, accuracy)


def made_up(
    method: str, n: int, accuracy: float, scorer: str | None = None, aggregate: str | None = None
) -> Result:
    return Result(
        method=method,
        scorer=scorer,
        aggregate=aggregate,
        n=n,
        accuracy=accuracy,
        low=0.1,
        high=0.9,
        resampling_error=0.0,
    )


def with_results(*results: Result) -> PolicyFindings:
    return replace(policy(), results=results)


@pytest.mark.parametrize("turned", [False, True])
def test_a_difference_has_our_sign_whichever_way_it_was_stored(turned: bool) -> None:
    first, second = "best-of-n/implicit-prm/min", "majority"
    stored = Comparison(
        n=4, first=first, second=second, difference=0.3, low=0.1, high=0.4, p_value=0.1, p_holm=0.1
    )
    if turned:
        stored = replace(stored, first=second, second=first, difference=-0.3, low=-0.4, high=-0.1)
    difference = difference_of([stored], 4, LOWEST_STEP, MAJORITY)
    assert difference == Interval(0.3, 0.1, 0.4)
    assert difference_of([stored], 16, LOWEST_STEP, MAJORITY) is None


def test_the_response_reward_stands_in_for_the_sum_of_steps() -> None:
    assert list(SUM_OF_STEPS.cells([best_of(4, 0.5, "reward")])) == [4]
    both = SUM_OF_STEPS.cells([best_of(4, 0.5, "reward"), best_of(4, 0.6, "sum")])
    assert both[4].accuracy == 0.6


def test_a_single_response_is_shown_at_n_1_only() -> None:
    results = [made_up("pass", n, 0.4) for n in (1, 4)]
    assert list(SINGLE.cells(results)) == [1]


def test_the_table_shows_1_4_16_64_or_else_whatever_there_is() -> None:
    many = with_results(*(majority(n, 0.5) for n in (1, 2, 4, 8, 16)))
    assert policy_table("mid", many).ns == (1, 4, 16)
    assert policy_table("mid", with_results(majority(3, 0.5))).ns == (3,)


def test_only_the_best_stands_out_and_nothing_at_n_1() -> None:
    results = (majority(1, 0.4), best_of(1, 0.4), majority(4, 0.5), best_of(4, 0.7))
    table = policy_table("mid", with_results(*results))
    best = [(row.chooser.name, [cell.best for cell in row.cells]) for row in table.rows]
    assert [name for name, marks in best if any(marks)] == [LOWEST_STEP.name]
    assert dict(best)[LOWEST_STEP.name] == [False, True]


def test_curves_have_every_n_that_was_measured() -> None:
    few = with_results(*(best_of(n, 0.1 * n) for n in (1, 2, 4, 8)))
    (plot,) = accuracy_curves({"mid": few})
    cells = [row.all("td")[0].text for row in parse(str(plot)).all("tbody")[0].all("tr")]
    assert cells == ["1", "2", "4", "8"]


def test_the_legend_names_every_curve_once() -> None:
    names = [item.text for item in parse(str(choosers_legend())).all("li")]
    assert names[0] == LOWEST_STEP.name
    assert len(names) == len(set(names)) == 5

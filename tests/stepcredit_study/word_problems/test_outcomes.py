from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stepcredit.stats import Interval, ProblemBootstrap
from stepcredit_study.analyses.within_problem import as_list
from stepcredit_study.word_problems.evidence import REFERENCE, SHORTNESS, Steps
from stepcredit_study.word_problems.outcomes import _slips

NUM_STEPS = 60


def test_what_has_no_estimate_or_no_interval_is_not_reported() -> None:
    nothing = float("nan")
    assert as_list(Interval(nothing, nothing, nothing)) is None
    assert as_list(Interval(0.5, nothing, nothing)) is None
    assert as_list(Interval(0.5, 0.4, 0.6)) == [0.5, 0.4, 0.6]


def naive_auc(is_slip: Any, rewards: Any) -> float:
    slips, right = rewards[is_slip], rewards[~is_slip]
    return float(np.mean([[(low < high) + 0.5 * (low == high) for high in right] for low in slips]))


@pytest.fixture
def steps() -> Steps:
    """Slips are long; the method sees more than that, the reference half as much."""
    random = np.random.default_rng(0)
    is_slip = random.random(NUM_STEPS) < 0.5
    lengths = random.integers(5, 20, NUM_STEPS) + 4.0 * is_slip
    seen = random.normal(size=NUM_STEPS) - is_slip
    return Steps(
        is_slip=is_slip,
        problems=np.arange(NUM_STEPS) % 6,
        positions=random.integers(0, 3, NUM_STEPS) + is_slip,
        lengths=lengths,
        rewards={
            REFERENCE: [0.5 * seen + random.normal(size=NUM_STEPS)],
            "implicit-ce": [seen - 0.3 * lengths],
            SHORTNESS: [-lengths],
        },
        share_with_slip=None,
        share_foreign=None,
    )


def test_slips_are_found_by_rewards_and_by_what_a_steps_length_leaves_of_them(steps: Steps) -> None:
    evidence: Any = SimpleNamespace(steps=steps)
    bootstrap = ProblemBootstrap(6, num_draws=200)
    rows = {method: _slips(evidence, method, bootstrap) for method in steps.rewards}
    residuals = {}
    for method in ("implicit-ce", REFERENCE):
        (rewards,) = steps.rewards[method]
        line = np.polynomial.Polynomial.fit(steps.lengths, rewards, 1)
        residuals[method] = rewards - line(steps.lengths)
        expected = naive_auc(steps.is_slip, residuals[method])
        assert rows[method]["length regressed out"][0] == pytest.approx(expected, abs=1e-9)
    for method, (rewards,) in steps.rewards.items():
        assert rows[method]["auc"][0] == pytest.approx(naive_auc(steps.is_slip, rewards), abs=1e-9)
    ce, reference, shortness = (rows[method] for method in ("implicit-ce", REFERENCE, SHORTNESS))
    assert ce["minus reference"][0] == pytest.approx(ce["auc"][0] - reference["auc"][0], abs=1e-9)
    assert ce["minus shortness"][0] == pytest.approx(ce["auc"][0] - shortness["auc"][0], abs=1e-9)
    assert ce["length regressed out, minus reference"][0] == pytest.approx(
        ce["length regressed out"][0] - reference["length regressed out"][0], abs=1e-9
    )
    assert shortness.keys() == {"auc", "at the same position"}
    assert ce["auc"][0] > ce["length regressed out"][0] > 0.5


def test_slips_are_found_among_steps_at_the_same_position(steps: Steps) -> None:
    """The mean over positions weighs each by its pairs; a score that only knows the position has one half."""
    by_place = replace(steps, rewards={**steps.rewards, "implicit-ce": [-1.0 * steps.positions]})
    for rewarded in (steps, by_place):
        (rewards,) = rewarded.rewards["implicit-ce"]
        ordered, pairs = 0.0, 0
        for position in np.unique(steps.positions):
            here = steps.positions == position
            count = int(steps.is_slip[here].sum() * (~steps.is_slip[here]).sum())
            if count:
                ordered += count * naive_auc(steps.is_slip[here], rewards[here])
                pairs += count
        evidence: Any = SimpleNamespace(steps=rewarded)
        row = _slips(evidence, "implicit-ce", ProblemBootstrap(6, num_draws=200))
        assert row["at the same position"][0] == pytest.approx(ordered / pairs, abs=1e-9)
    assert row["at the same position"][0] == pytest.approx(0.5)
    assert row["auc"][0] > 0.6

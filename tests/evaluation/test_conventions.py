"""What conventions change, against a naive computation."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.builders import rollout, score

from stepcredit.errors import DataError
from stepcredit.evaluation.conventions import (
    Convention,
    ConventionResult,
    best_of_n_by_convention,
    convention_tables,
    error_finding_by_convention,
    response_scores,
)
from stepcredit.evaluation.error_finding import best_threshold, find_errors, threshold_ranges
from stepcredit.evaluation.labelled_steps import join_labels
from stepcredit.evaluation.samples import join
from stepcredit.evaluation.score_columns import score_columns
from stepcredit.stats import ProblemBootstrap
from stepcredit.types import ResponseScore, Rollout, StepLabel

NUM_PROBLEMS, NUM_RESPONSES = 5, 4
MADE = {
    "clean": Convention(),
    "clean-without-reference": Convention(reference=False),
    "best-of-n": Convention(steps="best-of-n"),
}
RANDOM = np.random.default_rng(4)
CORRECT = RANDOM.random((NUM_PROBLEMS, NUM_RESPONSES)) < 0.5
REWARDS = {name: RANDOM.normal(size=(NUM_PROBLEMS, NUM_RESPONSES, 2)) for name in MADE}
RESPONSES = [
    rollout(f"{problem}-{index}", f"p{problem}", correct=bool(CORRECT[problem, index]), prediction=str(index))
    for problem in range(NUM_PROBLEMS)
    for index in range(NUM_RESPONSES)
]


def all_scores(name: str) -> list[ResponseScore]:
    flat = REWARDS[name].reshape(-1, 2)
    return [score(response, rewards) for response, rewards in zip(RESPONSES, flat.tolist(), strict=True)]


def naive_accuracies(convention: Convention, name: str, n: int) -> list[float]:
    """Accuracy on each problem, choice by choice."""
    accuracies = []
    for problem in range(NUM_PROBLEMS):
        values = []
        for first, second in REWARDS[name][problem]:
            steps = [first, second] if convention.step_score == "difference" else [first, first + second]
            values.append(min(steps) if convention.aggregate == "min" else sum(steps))
        every = itertools.combinations(range(NUM_RESPONSES), n)
        subsets: Sequence[tuple[int, ...]] = list(every) if convention.subsets == "all" else [tuple(range(n))]
        chosen = [max(subset, key=lambda index: values[index]) for subset in subsets]
        accuracies.append(float(np.mean([CORRECT[problem, index] for index in chosen])))
    return accuracies


@pytest.fixture(scope="module")
def results() -> list[ConventionResult]:
    joined = join(RESPONSES, {name: score_columns(all_scores(name), name) for name in MADE})
    return best_of_n_by_convention(joined, MADE, (2, 4), draws=500, seed=3)


def test_accuracies_are_those_of_choosing_by_hand(results: list[ConventionResult]) -> None:
    names = {(how.steps, how.reference): name for name, how in MADE.items()}
    # Ways to score, times differences or values, min or sum, all subsets or the first, and two sizes.
    assert len(results) == len({(row.convention, row.n) for row in results}) == 3 * 8 * 2
    baseline = {n: naive_accuracies(results[0].convention, "clean", n) for n in (2, 4)}
    assert results[0].convention == Convention(aggregate="min", subsets="all")
    bootstrap = ProblemBootstrap(NUM_PROBLEMS, num_draws=500, seed=3)
    for row in results:
        assert row.n is not None
        name = names[row.convention.steps, row.convention.reference]
        expected = naive_accuracies(row.convention, name, row.n)
        assert row.value == pytest.approx(np.mean(expected))
        change = bootstrap.interval(np.subtract(expected, baseline[row.n]))
        assert (row.change, row.change_low, row.change_high) == pytest.approx(
            (change.estimate, change.low, change.high), abs=1e-12
        )
        assert row.low - 1e-12 <= row.value <= row.high + 1e-12


def test_the_baseline_does_not_change(results: list[ConventionResult]) -> None:
    for row in results:
        if row.convention == results[0].convention:
            assert row.change == row.change_low == row.change_high == 0.0


def test_tables_show_single_changes_and_the_published_variants(results: list[ConventionResult]) -> None:
    single, published = convention_tables(results)
    # The baseline; without the reference; other steps; values; sums; the first n.
    assert len(single.rows) == 6
    assert single.header[:5] == ("steps", "reference", "step score", "aggregate", "subsets")
    assert single.header[5:] == ("n = 2", "change", "n = 4", "change")
    assert single.rows[0][:5] == ("clean", "with", "difference", "min", "all")
    assert len(published.rows) == 4
    assert {row[0] for row in published.rows} == {"best-of-n"}
    assert {row[4] for row in published.rows} == {"first"}
    assert "paired 95% intervals" in single.to_text()


def labelled(name: str, problem: str, error: int) -> Rollout:
    labels = [StepLabel(2, float(error != 0)), StepLabel(3, float(error != 1))][: 1 if error == 0 else 2]
    return replace(rollout(name, problem, correct=error < 0), step_labels=tuple(labels))


def test_f1_is_that_of_each_ones_best_threshold_on_shared_responses() -> None:
    rows = [
        labelled(f"r{index}", f"p{index // 2}", error) for index, error in enumerate([-1, 0, 1, -1, 0, 1])
    ]
    rng = np.random.default_rng(0)
    columns = {}
    for name, count in (("clean", 6), ("processbench", 5)):
        scored = [score(row, rng.normal(size=2).tolist()) for row in rows[:count]]
        columns[name] = score_columns(scored, name)
    made = {name: (Convention(steps=name), column) for name, column in columns.items()}
    results, excluded = error_finding_by_convention(rows, made, draws=300, seed=1)
    assert excluded == {"responses without a score (processbench)": 1}
    assert [(row.convention.steps, row.convention.step_score) for row in results] == [
        (name, step_score) for name in made for step_score in ("difference", "cumulative")
    ]
    for row in results:
        steps = join_labels(rows[:5], columns[row.convention.steps])
        quantity = "reward" if row.convention.step_score == "difference" else "value"
        threshold = best_threshold(threshold_ranges(steps, quantity))  # type: ignore[arg-type]
        expected = find_errors(
            steps,
            quantity,  # type: ignore[arg-type]
            threshold,
            bootstrap=ProblemBootstrap(3, num_draws=300, seed=1),
        ).f1
        assert (row.value, row.low, row.high) == pytest.approx(
            (expected.estimate, expected.low, expected.high)
        )
        assert row.change == pytest.approx(row.value - results[0].value)
        assert row.change_low <= row.change_high or math.isnan(row.change_low)
    single, published = convention_tables(results)
    assert [row[:3] for row in single.rows] == [
        ("clean", "with", "difference"),
        ("clean", "with", "cumulative"),
        ("processbench", "with", "difference"),
    ]
    assert len(published.rows) == 2


def test_a_response_without_steps_has_no_step_scores() -> None:
    whole = score(RESPONSES[0], [1.0, 2.0])
    columns = score_columns([whole, replace(score(RESPONSES[1], [1.0, 2.0]), steps=())])
    with pytest.raises(DataError, match="a response has no steps"):
        response_scores(columns, "reward", "min")
    assert response_scores(score_columns([whole]), "value", "sum").tolist() == [4.0]

import itertools

import numpy as np
import pytest
from sklearn import metrics

from stepcredit.evaluation.labelled_steps import LabelledSteps
from stepcredit.evaluation.step_metrics import (
    best_verdict_threshold,
    judge_steps,
    measure_steps,
    step_probabilities,
)
from stepcredit.evaluation.step_results import Context, mean_rows, quantities, step_counts, verdict_rows
from stepcredit.stats import Interval, ProblemBootstrap


def random_steps(num_responses: int = 30, seed: int = 0, *, rounded: bool = False) -> LabelledSteps:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 6, num_responses)
    labels = (generator.random(sizes.sum()) < 0.7).astype(float)
    labels[generator.random(len(labels)) < 0.1] = np.nan
    scores = generator.normal(np.where(labels == 1.0, 1.0, 0.0))
    scores = np.round(scores) if rounded else scores
    return LabelledSteps(
        ids=tuple(f"r{i}" for i in range(num_responses)),
        problem_ids=tuple(f"p{i}" for i in range(num_responses)),
        clusters=np.arange(num_responses),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        labels=labels,
        rewards=scores,
        values=scores,
        first_wrong=np.full(num_responses, -1),
    )


def test_separation_is_over_labelled_steps_only() -> None:
    steps = random_steps(rounded=True)
    labelled = steps.labelled
    wrong, scores = steps.wrong[labelled], steps.rewards[labelled]
    found = measure_steps(steps, "reward")
    assert found.num_steps == labelled.sum() < len(labelled)
    assert found.auc.estimate == pytest.approx(metrics.roc_auc_score(wrong, -scores))
    assert found.average_precision.estimate == pytest.approx(metrics.average_precision_score(wrong, -scores))
    assert found.average_precision.low < found.average_precision.estimate < found.average_precision.high
    assert found.calibration_error.low < found.calibration_error.estimate < found.calibration_error.high


def test_precision_in_each_draw_is_that_of_the_drawn_steps() -> None:
    steps = random_steps(12, rounded=True)
    bootstrap = ProblemBootstrap(12, num_draws=200, seed=4)
    found = measure_steps(steps, "reward", bootstrap=bootstrap)
    labelled, clusters = steps.labelled, steps.cluster_of_step
    drawn = []
    for draw in range(200):
        weights = bootstrap.counts(draw, draw + 1)[:, 0][clusters][labelled]
        if (weights * steps.wrong[labelled]).any():
            scores = -steps.rewards[labelled]
            drawn.append(
                metrics.average_precision_score(steps.wrong[labelled], scores, sample_weight=weights)
            )
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.average_precision.low, found.average_precision.high) == pytest.approx((low, high))


def test_verdicts_are_sklearns_f1s() -> None:
    steps = random_steps()
    found = judge_steps(steps, "reward", 0.6, "fixed")
    labelled = steps.labelled
    called_right = step_probabilities(steps.rewards)[labelled] > 0.6
    right = ~steps.wrong[labelled]
    assert found.positive_f1.estimate == pytest.approx(metrics.f1_score(right, called_right))
    assert found.negative_f1.estimate == pytest.approx(metrics.f1_score(~right, ~called_right))
    assert found.prm_score.estimate == pytest.approx(
        (found.positive_f1.estimate + found.negative_f1.estimate) / 2
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    steps = random_steps(10, seed, rounded=seed % 2 == 0)
    probabilities = np.unique(step_probabilities(steps.rewards)[steps.labelled])
    every = [-0.1, *probabilities, *(a / 2 + b / 2 for a, b in itertools.pairwise(probabilities)), 1.1]
    best = max(judge_steps(steps, "reward", float(each), "").prm_score.estimate for each in every)
    chosen = best_verdict_threshold(steps, "reward")
    assert judge_steps(steps, "reward", chosen, "").prm_score.estimate == pytest.approx(best)


def test_scores_in_the_unit_interval_are_probabilities_already() -> None:
    np.testing.assert_array_equal(step_probabilities(np.array([0.0, 0.3, 1.0])), [0.0, 0.3, 1.0])
    np.testing.assert_allclose(step_probabilities(np.array([0.0, 2.0])), [0.5, 0.880797])


def test_rows_name_every_threshold() -> None:
    context = Context("part", "prm", draws=100)
    rows = verdict_rows(context, random_steps(), "reward", {"fixed: 0.5 (published)": 0.5})
    assert {row.threshold_from for row in rows} == {"fixed: 0.5 (published)", "these rows (oracle threshold)"}
    assert all(row.threshold is not None for row in rows)


def test_a_mean_over_subsets_needs_all_of_them() -> None:
    def row(subset: str, value: float, origin: str) -> object:
        return Context(subset, "prm").row(
            "reward", "f1", Interval(value, value - 0.1, value + 0.1), 0.0, origin
        )

    rows = [row("a", 0.4, "x"), row("b", 0.6, "x"), row("a", 0.9, "y")]
    (mean,) = mean_rows(rows, "f1")  # type: ignore[arg-type]
    assert (mean.subset, mean.threshold_from) == ("mean of subsets", "x")
    assert mean.value == pytest.approx(0.5)
    assert mean.high - mean.value == pytest.approx(0.1 / np.sqrt(2))


def test_merging_and_selecting_keep_problems_together() -> None:
    steps = random_steps(6)
    both = LabelledSteps.merge([steps, steps])
    assert (both.num_responses, both.num_clusters) == (12, 6)
    half = both.select(np.arange(12) < 6)
    np.testing.assert_array_equal(half.rewards, steps.rewards)
    assert step_counts(half) == step_counts(steps)
    assert quantities(steps) == ("reward",)

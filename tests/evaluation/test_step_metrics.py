from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics
from tests.evaluation.builders import random_steps

from stepcredit.evaluation.labelled_steps import LabelledSteps, on_one_scale, step_probabilities
from stepcredit.evaluation.step_metrics import measure_steps
from stepcredit.evaluation.step_results import Context, mean_rows, quantities, step_counts, verdict_rows
from stepcredit.stats import Interval, ProblemBootstrap


def test_separation_is_over_labelled_steps_only() -> None:
    steps = random_steps(rounded=True)
    labelled = steps.labelled
    wrong, scores = steps.wrong[labelled], steps.rewards[labelled]
    measured = measure_steps(steps, "reward")
    assert measured.auc.estimate == pytest.approx(metrics.roc_auc_score(wrong, -scores))
    assert measured.average_precision.estimate == pytest.approx(
        metrics.average_precision_score(wrong, -scores)
    )
    assert (
        measured.average_precision.low < measured.average_precision.estimate < measured.average_precision.high
    )
    assert (
        measured.calibration_error.low < measured.calibration_error.estimate < measured.calibration_error.high
    )


def test_precision_in_each_draw_is_that_of_the_drawn_steps() -> None:
    steps = random_steps(12, rounded=True)
    bootstrap = ProblemBootstrap(12, num_draws=200, seed=4)
    measured = measure_steps(steps, "reward", bootstrap=bootstrap)
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
    assert (measured.average_precision.low, measured.average_precision.high) == pytest.approx((low, high))


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


def test_all_steps_of_a_scorer_are_read_on_one_scale() -> None:
    """The scores of the first part look like probabilities, but those of the second are logits."""
    low, high = random_steps(3), random_steps(3, seed=1)
    size = len(low.labels)
    low = replace(low, rewards=np.full(size, 0.3), values=np.full(size, 0.3))
    np.testing.assert_array_equal(low.probabilities("reward"), 0.3)
    mixed = replace(high, rewards=np.full(len(high.labels), 2.0), values=np.ones(len(high.labels)))
    parts = on_one_scale([low, mixed])
    for part in parts[0], LabelledSteps.merge(parts).select(np.arange(6) < 3):
        np.testing.assert_allclose(part.probabilities("reward"), 0.574443, rtol=1e-5)
        np.testing.assert_array_equal(part.probabilities("value"), 0.3)

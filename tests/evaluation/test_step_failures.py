import numpy as np
import pytest

from stepcredit.evaluation.labelled_steps import join_labels
from stepcredit.evaluation.score_columns import score_columns
from stepcredit.evaluation.step_failures import StepDiagnostics, diagnose_steps
from stepcredit.types import ResponseScore, Rollout, StepLabel, StepScore

TEXTS = ("a\n", "bb\n", "cccc\n")


def labelled(name: str, first_wrong: int | None) -> Rollout:
    ends = np.cumsum([len(text) for text in TEXTS]).tolist()
    return Rollout(
        id=name,
        prompt_id=name,
        prompt=f"Prompt {name}",
        response="".join(TEXTS),
        step_labels=tuple(
            StepLabel(end, float(first_wrong is None or index < first_wrong))
            for index, end in enumerate(ends)
        ),
    )


def scored(name: str, rewards: tuple[float, ...]) -> ResponseScore:
    ends = np.cumsum([len(text) for text in TEXTS]).tolist()
    starts = [0, *ends[:-1]]
    return ResponseScore(
        id=name,
        prompt_id=name,
        reward=sum(rewards),
        steps=tuple(
            StepScore(i, TEXTS[i], starts[i], ends[i], reward, reward) for i, reward in enumerate(rewards)
        ),
        aggregates={},
        num_tokens=3,
        scorer="fake",
    )


@pytest.fixture
def diagnostics() -> StepDiagnostics:
    """a: the error is missed; b: it is found; c: a right step scores very low; d: all is well."""
    rollouts = [labelled("a", 1), labelled("b", 2), labelled("c", None), labelled("d", None)]
    scores = [
        scored("a", (-1.0, 1.0, 0.0)),
        scored("b", (1.0, 1.0, -1.0)),
        scored("c", (1.0, -3.0, 1.0)),
        scored("d", (1.0, 1.0, 1.0)),
    ]
    columns = score_columns(scores)
    return diagnose_steps(rollouts, columns, join_labels(rollouts, columns))


def test_the_worst_of_each_kind_are_shown_with_texts(diagnostics: StepDiagnostics) -> None:
    assert [(failure.kind, failure.id, failure.first_wrong_step) for failure in diagnostics.failures] == [
        ("missed", "a", 1),
        ("false alarm", "c", None),
    ]
    assert [(step.text, step.reward) for step in diagnostics.failures[0].steps] == [
        ("a\n", -1.0),
        ("bb\n", 1.0),
        ("cccc\n", 0.0),
    ]
    rewards = np.array([-1, 1, 0, 1, 1, -1, 1, -3, 1, 1, 1, 1], dtype=float)
    assert diagnostics.failures[0].margin == pytest.approx(2.0 / rewards.std())
    assert diagnostics.failures[1].margin == pytest.approx((rewards.mean() + 3.0) / rewards.std())


def test_correlations_with_place_and_length(diagnostics: StepDiagnostics) -> None:
    rewards = np.array([-1, 1, 0, 1, 1, -1, 1, -3, 1, 1, 1, 1], dtype=float)
    assert diagnostics.characters == pytest.approx(float(np.corrcoef(rewards, [2.0, 3.0, 5.0] * 4)[0, 1]))
    assert -1.0 <= diagnostics.position <= 1.0

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation import builders
from tests.stepcredit_study.made_up import MadeUp, check_of, verdicts

from stepcredit.data import rollout_to_json, score_to_json, write_rows
from stepcredit.lab.task import draw_problems
from stepcredit.pipelines.driver import Plan, Store
from stepcredit.types import Rollout
from stepcredit_study.claims import positive_control
from stepcredit_study.claims.cost import NEVER_LEVEL
from stepcredit_study.claims.main import OVER_STEP_MODELS, STEP_MODELS_BELOW_VOTE
from stepcredit_study.claims.positive_control import (
    AUTOPSV_HEAD,
    EXPERIMENT,
    HALF,
    LABELS,
    MAJORITY,
    MODELS,
    ORACLE,
    SECOND_STAGES,
    SOFT_HEAD,
    SOFT_TOKENS,
    TRUE_HEAD,
    TRUE_RATIO,
    TRUE_TOKENS,
    num_problems,
)
from stepcredit_study.claims.step_labels import MONTE_CARLO, TRUE, variant
from stepcredit_study.claims.theory import CE_ORDERS_BETTER
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds
from stepcredit_study.frame.variants import Variants
from stepcredit_study.frame.world import Responses, World
from stepcredit_study.pages.finding import Estimate, Finding

USUAL: Mapping[str, float] = {
    "implicit-ce": 0.9,
    "implicit-dpo": 0.88,
    HALF: 0.85,
    TRUE_HEAD: 0.92,
    TRUE_TOKENS: 0.93,
    TRUE_RATIO: 0.94,
    SOFT_HEAD: 0.6,
    SOFT_TOKENS: 0.58,
    AUTOPSV_HEAD: 0.5,
    LABELS: 0.94,
    MAJORITY: 0.45,
    ORACLE: 0.97,
    "pass@1": 0.43,
    "train/responses": 1600,
    **dict.fromkeys(SECOND_STAGES, 0.9),
}
"""Accuracies of a world in which the control succeeds and the implicit PRM leads."""


def concluded(scale: Scale, changes: Mapping[str, float] | None = None) -> Finding:
    """What follows from these accuracies; areas and correlations are those of a good model unless given."""
    numbers: dict[str, float] = {"step AUC": 0.98, "rank-correlation": 0.6, **USUAL, **(changes or {})}

    def rule(name: str) -> float:
        method, _, kind = name.rpartition("/")
        if name in numbers:
            return numbers[name]
        return numbers[kind if kind in numbers else method]

    return EXPERIMENT.conclude(Seeds([MadeUp(rule, 0.001 * seed) for seed in range(5)]), scale)


def test_where_the_control_succeeds_and_the_implicit_prm_leads_its_claims_hold(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale, {f"{SOFT_HEAD}/rank-correlation": 0.3})
    below_vote = [check.claim for check in finding.checks].index(STEP_MODELS_BELOW_VOTE)
    expected = ["holds"] * len(finding.checks)
    expected[below_vote] = "does not hold"
    assert verdicts(finding) == expected
    assert not any(check.is_published for check in finding.checks)


@pytest.mark.parametrize("place", [0, 1], ids=["value heads", "label tokens"])
@pytest.mark.parametrize("figure", ["/step AUC", ""], ids=["finds too few errors", "picks badly"])
def test_a_control_that_fails_is_said_to(tiny_scale: Scale, place: int, figure: str) -> None:
    names = (TRUE_HEAD, TRUE_TOKENS)
    finding = concluded(tiny_scale, {f"{names[place]}{figure}": 0.8})
    assert finding.checks[place].verdict == "does not hold"
    assert finding.checks[1 - place].verdict == "holds"


def test_heads_that_catch_up_where_they_can_learn_take_the_claims_with_them(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale, {SOFT_HEAD: 0.93, f"{SOFT_HEAD}/rank-correlation": 0.8})
    for claim in (OVER_STEP_MODELS, NEVER_LEVEL, CE_ORDERS_BETTER):
        assert check_of(finding, claim).verdict == "does not hold"


def test_label_tokens_that_catch_up_take_the_first_claim_with_them(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale, {SOFT_TOKENS: 0.93})
    assert check_of(finding, OVER_STEP_MODELS).verdict == "does not hold"


def test_step_labels_that_add_five_points_in_a_second_stage_help(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale, {variant("implicit-ce", TRUE): 0.95})
    assert check_of(finding, f"A second stage on {TRUE} does not help CE").verdict == "does not hold"
    assert check_of(finding, f"A second stage on {MONTE_CARLO} does not help CE").verdict == "holds"


def test_the_objective_is_chosen_on_development_problems(tiny_scale: Scale) -> None:
    """DPO looks better there and is worse: its accuracy counts."""
    changes = {"implicit-ce/development": 0.5, "implicit-dpo/development": 0.6, "implicit-dpo": 0.4}
    finding = concluded(tiny_scale, changes)
    assert check_of(finding, OVER_STEP_MODELS).verdict == "does not hold"


def test_heads_learn_from_labels_of_one_set_of_responses_to_more_problems(
    tiny_scale: Scale, tmp_path: Path
) -> None:
    plan = Plan()
    variants = EXPERIMENT.prepare(World(tiny_scale, Store(tmp_path, plan), seed=0))
    assert num_problems(tiny_scale) == 40
    assert set(variants.models) == set(MODELS)
    counts = Counter(command for command, _ in plan.steps)
    assert counts["train"] == len(MODELS)
    assert counts["label math-shepherd"] == counts["label autopsv"] == 1
    sampled = [options for command, options in plan.steps if command == "sample"]
    assert {options.num_samples for options in sampled} >= {positive_control.RESPONSES}
    heads = [options for command, options in plan.steps if command == "train" and "math-" in options.out.name]
    assert len(heads) == 5
    for options in heads:
        assert (options.config.batch_size, options.config.epochs) == (16, 4)
        assert not options.config.keep_best
    trained = [options for command, options in plan.steps if command == "train"]
    stages = [options for options in trained if "second-stage" in options.out.name]
    assert len(stages) == 4
    assert {(options.config.learning_rate, options.config.epochs) for options in stages} == {(1e-3, 1)}
    assert len({options.model for options in stages}) == 2


def _scored_alike(rollout: Rollout) -> dict[str, Any]:
    """The row of a model to which all steps are worth the same."""
    lines = rollout.response.splitlines(keepends=True)
    return score_to_json(builders.score(rollout, [0.1] * len(lines), lines))


def test_labels_pick_a_response_without_a_wrong_step(tiny_scale: Scale, tmp_path: Path) -> None:
    """Of two responses to each problem one is right throughout; by the labels the pick is always right."""
    rollouts = []
    for number, problem in enumerate(draw_problems("test", seed=0, count=3)):
        wrong = [*problem.results[:-1], (problem.results[-1] + 1) % 10]
        for index, results in enumerate((problem.results, wrong)):
            text = problem.write(tuple(results))
            rollout = Rollout(
                id=f"{number}/{index}",
                prompt_id=str(number),
                prompt=problem.text,
                response=text,
                answer=problem.answer,
                correct=index == 0,
                prediction=text[-1],
                index=index,
            )
            rollouts.append(rollout)
    graded, scores = tmp_path / "graded.jsonl", tmp_path / "scores.jsonl"
    write_rows(graded, map(rollout_to_json, rollouts))
    write_rows(scores, map(_scored_alike, rollouts))
    variants = Variants(
        dev=graded,
        test={"mid": Responses(graded, graded)},
        dev_scores=dict.fromkeys(MODELS, scores),
        test_scores={name: {"mid": scores} for name in MODELS},
        data={"train": graded},
    )
    world = World(tiny_scale, Store(tmp_path / "store"), seed=0)
    numbers = EXPERIMENT.measure(world, variants)
    assert numbers[f"{LABELS}/2"] == numbers[f"{ORACLE}/2"] == 1.0
    assert numbers[f"{TRUE_HEAD}/2"] == numbers["pass@1"] == 0.5
    assert numbers[f"{TRUE_HEAD}/step AUC"] == 0.5
    assert numbers["train/responses"] == 6


def test_every_model_has_a_row_and_a_place_in_the_plot(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale)
    (table,) = finding.tables
    assert [name for name, _ in table.rows] == [MAJORITY, *MODELS, LABELS, ORACLE]
    assert all(len(cells) == len(table.columns) for _, cells in table.rows)
    assert isinstance(dict(table.rows)[TRUE_HEAD][-1], Estimate)

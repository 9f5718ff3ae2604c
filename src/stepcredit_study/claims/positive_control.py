"""A positive control: claims about value heads and label tokens, repeated where these can succeed.

Purpose: in the lab's main experiment new heads hardly learn, so that the implicit PRM's lead over them may
measure nothing else. With more problems, fewer responses to each and smaller batches, heads on true labels
pick nearly as well as the labels themselves. Does the implicit PRM still lead there, and do step labels help
it in a second stage?

Differs from the paper: it has no such control. True labels end with the first wrong step. Log-ratios on the
same labels tell what labels are worth from what parameters are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stepcredit.data import read_rollouts
from stepcredit.evaluation.score_columns import read_score_columns
from stepcredit.lab.oracles import label_steps
from stepcredit.types import Rollout
from stepcredit_study.analyses import learned_values
from stepcredit_study.claims.cost import NEVER_LEVEL
from stepcredit_study.claims.main import OVER_STEP_MODELS, STEP_MODELS_BELOW_VOTE
from stepcredit_study.claims.step_labels import CONTROL, MONTE_CARLO, TRUE, check_of, second_stages, variant
from stepcredit_study.claims.theory import CE_ORDERS_BETTER
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import TestBed, development_accuracies
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, few_seeds, is_above, is_below
from stepcredit_study.frame.variants import (
    DPO_AND_CE,
    Variants,
    accuracy_table,
    measure_variants,
    score_variants,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Check,
    Estimate,
    Finding,
    Table,
    format_estimate,
    format_estimates,
    intervals_plot,
)

RESPONSES = 2
"""To each training problem."""
TRAINING: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 16,
    "epochs": 4,
    "keep_best": False,
    "eval_every": 10_000,
}
"""Of everything that learns from step labels, and of AutoPSV's verifier. Weights are the last ones: what
never saw the rest of a wrong response says nothing of whole responses, by which weights would be chosen."""
RATIO_TRAINING: Mapping[str, Any] = {**TRAINING, "epochs": 1}
"""Of log-ratios that learn from step labels, from the base or in a second stage."""

TRUE_HEAD, TRUE_RATIO = "head, true", "log-ratio, true"
TRUE_TOKENS, SOFT_TOKENS = "label tokens, true", "label tokens, Monte-Carlo"
SOFT_HEAD, AUTOPSV_HEAD = "head, Monte-Carlo", "head, AutoPSV"
STEP_MODELS = (SOFT_HEAD, SOFT_TOKENS, AUTOPSV_HEAD)
HALF = "implicit-ce, half of the instructions"
SECOND_STAGES = tuple(
    variant(method, stage) for method in DPO_AND_CE for stage in (CONTROL, MONTE_CARLO, TRUE)
)
MODELS = (*DPO_AND_CE, HALF, TRUE_HEAD, TRUE_TOKENS, TRUE_RATIO, *STEP_MODELS, *SECOND_STAGES)
LABELS, MAJORITY, ORACLE = "true labels themselves", "majority", "oracle"

NOT_HERE = "not in this setting"
"""What the paper says of claims that have an experiment of their own, so that they are counted once."""

CONTROLS = {"value heads": TRUE_HEAD, "label tokens": TRUE_TOKENS}
LEAST_AUC, MOST_BEHIND = 0.95, 0.05
"""What the control asks of first wrong steps, and of picks beside those of the labels themselves."""


def num_problems(scale: Scale) -> int:
    """Training problems: 10/3 times as many as elsewhere."""
    return 10 * scale.sizes.train_prompts // 3


def prepare(world: World) -> Variants:
    """All models, on one set of responses."""
    drawn = world.responses("train", num_prompts=num_problems(world.scale), num_samples=RESPONSES)
    train = world.select(drawn, distinct=True)
    true, soft = world.true_labels(train, to_first_wrong=True), world.math_shepherd(train)
    models = {name: world.train(name, train) for name in DPO_AND_CE}
    models[HALF] = world.train("implicit-ce", world.select(train, prompts=0.5))
    models[TRUE_RATIO] = world.train("implicit-ce", true, **{**RATIO_TRAINING, "objective": "step-ce"})
    heads = {TRUE_HEAD: true, SOFT_HEAD: soft, AUTOPSV_HEAD: world.autopsv(train, **TRAINING)}
    models |= {name: world.train("math-shepherd", data, **TRAINING) for name, data in heads.items()}
    tokens = {TRUE_TOKENS: true, SOFT_TOKENS: soft}
    models |= {name: world.train("math-shepherd-tokens", data, **TRAINING) for name, data in tokens.items()}
    again = {"batch_size": TRAINING["batch_size"], "epochs": 1}
    for method in DPO_AND_CE:
        labelled = {MONTE_CARLO: soft, TRUE: true}
        models |= second_stages(world, method, models[method], train, labelled, again=again, **RATIO_TRAINING)
    return score_variants(world, models, data={"train": train})


def measure(world: World, variants: Variants) -> Measurement:
    """Accuracy, first wrong steps and order of prefixes, by every model; and what labels themselves pick."""
    numbers, base = measure_variants(world, variants), world.scale.base
    bed = TestBed(variants.test[base], world.scale.n)
    for name, scores in variants.test_scores.items():
        numbers[f"{name}/step AUC"] = bed.step_auc(scores[base])
        values = learned_values.of_scores(bed.distinct, read_score_columns(scores[base]), world.tutor)
        numbers[f"{name}/rank-correlation"] = values.rank_correlation()
    for name in DPO_AND_CE:
        numbers[f"{name}/development"] = max(
            development_accuracies(variants.dev, variants.dev_scores[name]).values()
        )
    truth = bed.samples.of_responses(map(_all_right, responses) for responses in bed.samples.responses)
    picked = {
        LABELS: {n: float(values.mean()) for n, values in bed.best_of_n(truth).items()},
        MAJORITY: bed.majority(),
        ORACLE: {n: bed.pass_at(n) for n in bed.ns},
    }
    for name, accuracy in picked.items():
        numbers |= {f"{name}/{n}": value for n, value in accuracy.items()}
        numbers[name] = sum(accuracy.values()) / len(accuracy)
    numbers["train/responses"] = float(sum(1 for _ in read_rollouts(variants.data["train"])))
    return numbers


def _all_right(rollout: Rollout) -> float:
    """1 where every step is right."""
    return float(all(label.label > 0.5 for label in label_steps(rollout)))


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Whether the control succeeds, and the claims that it is for."""
    return Finding(
        name="positive-control",
        title="Does the implicit PRM still lead where heads can succeed?",
        purpose=f"Value heads and label tokens on true labels as a control, and claims about them "
        f"repeated{few_seeds(seeds)}.",
        differs=(
            f"{scale.setting}; {num_problems(scale):,} training problems with {RESPONSES} responses to each "
            f"instead of {scale.sizes.train_prompts:,} with {scale.sizes.train_responses}, of equal ones the "
            "first; smaller batches for what learns from step labels; responses of the base only."
        ),
        tables=(_table(seeds, scale),),
        checks=(
            *(_succeeds(seeds, kind, name) for kind, name in CONTROLS.items()),
            _over_step_models(seeds),
            _below_vote(seeds),
            _level(seeds),
            _orders(seeds),
            *(
                replace(check_of(seeds, method, labels), paper=NOT_HERE)
                for method in DPO_AND_CE
                for labels in (MONTE_CARLO, TRUE)
            ),
        ),
        plots=(
            intervals_plot(
                "positive-control",
                "Accuracy by reward model, mean over n; the line is the plain vote",
                "Accuracy",
                {name: seeds.of(name) for name in (MAJORITY, *MODELS, LABELS, ORACLE)},
                reference=seeds.of(MAJORITY).mean,
            ),
        ),
        notes=(
            "The true labels' own pick is a response without a wrong step; an oracle also takes those that "
            "are right by chance.",
            "CE and DPO have the recipe's settings, which were chosen for fewer problems with more "
            "responses; those of the step models were looked for in this setting, with true labels, which "
            "favours these.",
            "Second stages on step labels have the settings of log-ratios on true labels; those on final "
            "answers have their method's rate, smaller batches and one epoch.",
        ),
    )


def _table(seeds: Seeds, scale: Scale) -> Table:
    def more(name: str) -> tuple[Estimate | None, ...]:
        return seeds.get(f"{name}/step AUC"), seeds.get(f"{name}/rank-correlation")

    return accuracy_table(
        seeds,
        scale,
        {name: (name, more(name)) for name in (MAJORITY, *MODELS, LABELS, ORACLE)},
        ("first wrong step AUC", "rank correlation"),
        title="Accuracy of best-of-n, and how well steps and prefixes are told apart",
        caption=" Training responses: "
        f"{format_estimate(seeds.of('train/responses'), percent=False, digits=0)}. The AUC is that of the "
        "step reward, first wrong steps against right steps before any error; the correlation (Spearman's) "
        "that of learned and exact values of prefixes within a problem.",
    )


def _succeeds(seeds: Seeds, kind: str, name: str) -> Check:
    area, behind = seeds.of(f"{name}/step AUC"), seeds.difference(LABELS, name)
    ratio_area, ratio_behind = seeds.of(f"{TRUE_RATIO}/step AUC"), seeds.difference(LABELS, TRUE_RATIO)
    return Check(
        claim=f"The control: {kind} on true labels find first wrong steps (AUC above {LEAST_AUC:g}) and "
        f"pick within {100 * MOST_BEHIND:.0f} points of the labels themselves.",
        paper="not published",
        here=f"AUC {format_estimate(area)}; the labels' own pick minus theirs "
        f"{format_estimate(behind, sign=True)}",
        verdict=all_of([is_above(area, LEAST_AUC), is_below(behind, MOST_BEHIND)]),
        why=f"Log-ratios on the same labels: AUC {format_estimate(ratio_area)}, behind by "
        f"{format_estimate(ratio_behind, sign=True)}.",
    )


def _over_step_models(seeds: Seeds) -> Check:
    def best(numbers: Measurement) -> str:
        return max(DPO_AND_CE, key=lambda name: numbers[f"{name}/development"])

    def lead(name: str) -> Estimate:
        return seeds.derived(lambda numbers: numbers[best(numbers)] - numbers[name])

    leads = {name: lead(name) for name in STEP_MODELS}
    over = {
        label: {
            name: seeds.difference(method, name) for name in (*STEP_MODELS, *CONTROLS.values(), TRUE_RATIO)
        }
        for method, label in DPO_AND_CE.items()
    }
    return Check(
        claim=OVER_STEP_MODELS,
        paper=NOT_HERE,
        here=f"CE or DPO, whichever is better on development problems, minus {format_estimates(leads)}",
        verdict=all_of([is_above(estimate) for estimate in leads.values()]),
        why="; ".join(f"{label} minus {format_estimates(gains)}" for label, gains in over.items()) + ".",
    )


def _below_vote(seeds: Seeds) -> Check:
    gains = {name: seeds.difference(name, MAJORITY) for name in STEP_MODELS}
    added = seeds.difference(MAJORITY, "pass@1")
    return Check(
        claim=STEP_MODELS_BELOW_VOTE,
        paper=NOT_HERE,
        here=format_estimates(gains),
        verdict=all_of([is_below(gain) for gain in gains.values()]),
        why=f"The vote adds {format_estimate(added, sign=True)} to a single response.",
    )


def _level(seeds: Seeds) -> Check:
    ahead = seeds.difference(HALF, SOFT_HEAD)
    return Check(
        claim=NEVER_LEVEL,
        paper=NOT_HERE,
        here=f"CE on half of the instructions minus Math-Shepherd on all {format_estimate(ahead, sign=True)}",
        verdict=is_above(ahead),
        why=f"On as many instructions the difference is "
        f"{format_estimate(seeds.difference('implicit-ce', SOFT_HEAD), sign=True)}.",
    )


def _orders(seeds: Seeds) -> Check:
    def correlation(name: str) -> str:
        return f"{name}/rank-correlation"

    gain = seeds.difference(correlation("implicit-ce"), correlation(SOFT_HEAD))
    known = {name: seeds.of(correlation(name)) for name in ("implicit-ce", SOFT_HEAD, TRUE_HEAD, TRUE_RATIO)}
    return Check(
        claim=CE_ORDERS_BETTER,
        paper=NOT_HERE,
        here=f"minus a head on soft labels {format_estimate(gain, percent=False, digits=2, sign=True)}",
        verdict=is_above(gain),
        why="Rank correlations with the exact values: "
        f"{format_estimates(known, percent=False, digits=2, sign=False)}.",
    )


EXPERIMENT = Experiment("positive-control", prepare, measure, conclude, lab_only=True)

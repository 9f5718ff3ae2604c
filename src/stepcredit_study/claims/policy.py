"""Each reward model sampled as a policy: is the best reward model the best policy?

Purpose: an implicit PRM is a language model, so it can answer problems itself. How well it does, beside the
model that it started from and beside its worth as a reward model.

Differs from the paper: the lab's problems stand for MATH-500; greedy answers and sampled ones are both
reported; the worth as a reward model is best-of-n on the base's responses, mean over n. Where the scale has
another beta than the paper's, every objective is trained with the paper's too: the same reward then takes a
larger change of probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from stepcredit.evaluation.score_columns import REWARD, read_score_columns
from stepcredit.stats import spearman
from stepcredit_study.claims.main import OBJECTIVES
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import TestBed, beta_of, choose_aggregate, share_right
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.variants import MARGIN, Variants, score_variants
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Cell,
    Check,
    Estimate,
    Finding,
    Plot,
    Series,
    Table,
    format_estimate,
    format_estimates,
)

BASE = "base"
GREEDY, SAMPLED, AS_REWARD, NATS = "greedy", "sampled", "reward", "nats"
NUM_SAMPLED = 8
PAPER_BETA = 0.05
AS_CHOSEN, AS_PUBLISHED = "", f", beta {PAPER_BETA}"
"""The scale's beta of each objective, and the paper's."""

PAPER: Mapping[str, tuple[str, str | None]] = {
    BASE: ("45.2", None),
    "implicit-dpo": ("25.8", "50.4"),
    "implicit-kto": ("46.6", "45.7"),
    "implicit-nca": ("35.6", "49.4"),
    "implicit-ce": ("28.6", "48.4"),
}
"""Accuracy as a policy on MATH-500 and average as a reward model (Table 1), in per cent."""


@dataclass(frozen=True, slots=True)
class Files:
    """What each model answers, and how it scores.

    Attributes:
        greedy: Model, or ``base``, to its graded likeliest responses to the test problems.
        sampled: Model, or ``base``, to its graded sampled ones.
    """

    greedy: Mapping[str, Path]
    sampled: Mapping[str, Path]
    variants: Variants


def prepare(world: World) -> Files:
    """The models of the main table as policies; their scores are those of the main table."""
    models: dict[str, Path] = {name: world.train(name) for name in OBJECTIVES}
    models |= {
        name + AS_PUBLISHED: world.train(name, beta=PAPER_BETA)
        for name in OBJECTIVES
        if world.scale.config(name).beta != PAPER_BETA
    }
    likeliest = replace(world.scale.sampling, temperature=0.0, top_p=1.0)
    writers: dict[str, Path | None] = {BASE: None, **models}
    greedy = {
        name: world.responses("test", model=model, sampling=likeliest, num_samples=1)
        for name, model in writers.items()
    }
    sampled = {
        name: world.responses("test", model=model, num_samples=NUM_SAMPLED) for name, model in models.items()
    }
    return Files(greedy, {BASE: world.test_set().graded, **sampled}, score_variants(world, models))


def measure(world: World, files: Files) -> Measurement:
    """Accuracy of single responses, and of best-of-n by the same models."""
    bed = TestBed(files.variants.test[world.scale.base], world.scale.n)
    numbers: dict[str, float] = {}
    for name in files.greedy:
        numbers[f"{name}/{GREEDY}"] = share_right(files.greedy[name])
        numbers[f"{name}/{SAMPLED}"] = share_right(files.sampled[name])
    for name, model in files.variants.models.items():
        scores = files.variants.test_scores[name][world.scale.base]
        aggregate = choose_aggregate(files.variants.dev, files.variants.dev_scores[name])
        accuracy = bed.accuracy(scores, aggregate)
        numbers[f"{name}/{AS_REWARD}"] = sum(accuracy.values()) / len(accuracy)
        numbers[f"{name}/{NATS}"] = mean_change(scores, model)
    return numbers


def mean_change(scores: Path, model: Path) -> float:
    """How far training moved the log-probability of a response, in nats, mean over responses."""
    return float(np.abs(read_score_columns(scores).scores[REWARD]).mean() / beta_of(model))


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Policies beside reward models, with each beta."""
    betas = [how for how in (AS_CHOSEN, AS_PUBLISHED) if f"{OBJECTIVES[0]}{how}/{GREEDY}" in seeds]
    checks = [check for how in betas for check in _checks(seeds, how)]
    return Finding(
        name="policy",
        title="Is the best reward model the best policy?",
        purpose="Each implicit PRM answers the test problems itself.",
        differs=(
            f"{scale.setting}; greedy and sampled answers; as a reward model each is tested on the "
            "base's responses only; every objective with its own beta, and with the paper's."
        ),
        tables=(_table(seeds, scale, betas),),
        checks=tuple(checks),
        plots=(
            Plot(
                name="policy",
                title="The same models as reward models and as policies",
                kind="points",
                x_label="Accuracy of best-of-n on the base's responses, mean over n",
                y_label="Accuracy of its own greedy responses",
                series=tuple(
                    Series(
                        name=name + beta,
                        x=(seeds.of(f"{name}{beta}/{AS_REWARD}").mean,),
                        y=(seeds.of(f"{name}{beta}/{GREEDY}"),),
                    )
                    for beta in betas
                    for name in OBJECTIVES
                ),
            ),
        ),
    )


def _table(seeds: Seeds, scale: Scale, betas: Sequence[str]) -> Table:
    def row(name: str, beta: str) -> tuple[str, tuple[Cell, ...]]:
        as_policy, as_reward = PAPER[name]
        policies = (seeds.of(f"{name}{beta}/{GREEDY}"), seeds.of(f"{name}{beta}/{SAMPLED}"))
        if name == BASE:
            return name, (*policies, None, None, as_policy, as_reward)
        moved = format_estimate(seeds.of(f"{name}{beta}/{NATS}"), percent=False)
        return name + beta, (*policies, seeds.of(f"{name}{beta}/{AS_REWARD}"), moved, as_policy, as_reward)

    return Table(
        title="As a policy and as a reward model",
        columns=(
            "greedy",
            "sampled",
            "as reward model",
            "change of log-probability (nats)",
            "paper, as policy",
            "paper, as reward model",
        ),
        rows=(row(BASE, AS_CHOSEN), *(row(name, beta) for beta in betas for name in OBJECTIVES)),
        caption=(
            f"Per cent of right single responses (greedy: the likeliest; sampled: {NUM_SAMPLED} per problem, "
            f"of {BASE} {scale.sizes.test_responses}, drawn as test responses are), and accuracy of "
            "best-of-n on the base's responses, mean over "
            f"n = {', '.join(map(str, scale.n))}. Moved by: how far training moved the log-probability of a "
            "test response, up or down, on average. The paper's beta is 0.05."
        ),
    )


def rank_correlation(numbers: Measurement, beta: str = AS_CHOSEN) -> float:
    """Spearman's, over objectives, of reward models with greedy policies; 0 where either has no order."""
    rewards = np.array([numbers[f"{name}{beta}/{AS_REWARD}"] for name in OBJECTIVES])
    policies = np.array([numbers[f"{name}{beta}/{GREEDY}"] for name in OBJECTIVES])
    correlation = spearman(rewards, policies)
    return correlation if np.isfinite(correlation) else 0.0


def lead_over_best(seeds: Seeds, beta: str = AS_CHOSEN) -> Estimate:
    """Greedy accuracy of the best policy minus that of the best reward model.

    Which two objectives these are is decided for each seed by the other seeds.
    """

    def best(known: Seeds, what: str) -> str:
        return max(OBJECTIVES, key=lambda name: known.of(f"{name}{beta}/{what}").mean)

    def lead(numbers: Measurement, both: str) -> float:
        policy, reward = both.split()
        return numbers[f"{policy}{beta}/{GREEDY}"] - numbers[f"{reward}{beta}/{GREEDY}"]

    return seeds.named_by_others(lambda known: f"{best(known, GREEDY)} {best(known, AS_REWARD)}", lead)


def _checks(seeds: Seeds, beta: str) -> list[Check]:
    lead = lead_over_best(seeds, beta)
    correlation = seeds.derived(partial(rank_correlation, beta=beta))
    over_base = {name: seeds.difference(f"{name}{beta}/{GREEDY}", f"{BASE}/{GREEDY}") for name in OBJECTIVES}
    losing = [name for name in OBJECTIVES if name != "implicit-kto"]
    opening = f"With the paper's beta ({PAPER_BETA}), " if beta == AS_PUBLISHED else ""

    def claim(text: str) -> str:
        return opening + text[0].lower() + text[1:] if opening else text

    return [
        Check(
            claim=claim("The best reward model is not the best policy."),
            paper="DPO is the best reward model (50.4) and the worst policy (25.8), KTO the reverse",
            here="the best policy minus the best reward model (identified on the other seeds), greedy: "
            f"{format_estimate(lead, sign=True)}. Rank correlation over the objectives "
            f"{format_estimate(correlation, percent=False, digits=2, sign=True)} (the paper's "
            "numbers: -0.80)",
            verdict=is_above(lead) if any(lead.values) else "does not hold",
            why=_why_close(seeds, beta),
        ),
        Check(
            claim=claim("A model trained as a reward model by DPO, NCA or CE becomes a worse policy."),
            paper="base 45.2; DPO 25.8, NCA 35.6, CE 28.6",
            here=_changes(over_base, losing),
            verdict=all_of([is_below(over_base[name]) for name in losing]),
            why=_why(seeds, beta),
        ),
        Check(
            claim=claim(f"A model trained by KTO remains as good a policy (loses less than {MARGIN:.0%})."),
            paper="46.6 against 45.2",
            here=_changes(over_base, ["implicit-kto"]),
            verdict=is_above(over_base["implicit-kto"], -MARGIN),
            why=_why(seeds, beta),
        ),
    ]


def _why_close(seeds: Seeds, beta: str) -> str:
    ranges = []
    for what in (AS_REWARD, GREEDY):
        means = [seeds.of(f"{name}{beta}/{what}").mean for name in OBJECTIVES]
        ranges.append(f"{100 * (max(means) - min(means)):.1f}")
    return (
        f"The four objectives lie within {ranges[0]} points as reward models and {ranges[1]} as policies; in "
        "the paper within 4.7 and 20.8."
    )


def _why(seeds: Seeds, beta: str) -> str:
    """How far log-probabilities moved for the rewards that an objective asks for."""
    moved = {name: seeds.of(f"{name}{beta}/{NATS}") for name in OBJECTIVES}
    return (
        "A reward is beta times a log-ratio, so the smaller beta is, the more the same reward "
        f"changes the model. Mean change of a test response's log-probability (nats): "
        f"{format_estimates(moved, percent=False, sign=False)}."
    )


def _changes(over_base: Mapping[str, Estimate], names: list[str]) -> str:
    return f"greedy, minus the base: {format_estimates({name: over_base[name] for name in names})}"


EXPERIMENT = Experiment("policy", prepare, measure, conclude)

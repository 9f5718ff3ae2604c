"""What critics say of implicit PRMs, measured; and remedies for over-optimisation.

Purpose: does the lowest step degenerate to the last one, does reward follow length, does an implicit PRM
generalise worse to other generators than a value head; and why does choosing from more responses at
temperature 1 pick worse ones, and what keeps it from doing so without touching the sampler?

Differs from the paper: it asks none of this. The numbers beside the lab's are those of the works named.

Over-optimisation is prepared and measured in ``analyses/over_optimisation.py``, and concluded in
``analyses/over_optimisation_findings.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepcredit.evaluation.score_columns import REWARD, read_score_columns
from stepcredit.stats import spearman
from stepcredit_study.analyses import over_optimisation
from stepcredit_study.analyses.over_optimisation import Choices
from stepcredit_study.analyses.over_optimisation_findings import (
    optimisation_checks,
    optimisation_plots,
    optimisation_tables,
)
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import TestBed, choose_aggregate, minimum_is_last
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.variants import Variants, score_variants
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Check,
    Estimate,
    Finding,
    Table,
    Verdict,
    format_estimate,
    format_estimates,
)

IMPLICIT, HEAD, STEP_MODEL = "implicit-ce", "outcome-head", "math-shepherd"
MODELS = (IMPLICIT, "implicit-dpo", HEAD, STEP_MODEL)
ENOUGH_PROBLEMS = 0.2
"""Share of the problems whose responses must differ in length for a correlation to be reported."""
SMALLEST_GAIN = 1e-3
"""Of a model that gains less there is no part to speak of."""


def prepare(world: World) -> tuple[Variants, Choices]:
    """The usual models with every generator, and three more CE models against over-optimisation."""
    labelled = {STEP_MODEL: world.math_shepherd()}
    models: dict[str, Path] = {name: world.train(name, labelled.get(name)) for name in MODELS}
    variants = score_variants(world, models, world.scale.generators)
    return variants, over_optimisation.prepare(world, variants.test[world.scale.base])


def measure(world: World, files: tuple[Variants, Choices]) -> Measurement:
    """Everything that critics name, then choices at temperature 1 with each remedy."""
    variants, choices = files
    base = TestBed(variants.test[world.scale.base], world.scale.n)
    numbers: dict[str, float] = {}
    for name, by_policy in variants.test_scores.items():
        scores = by_policy[world.scale.base]
        columns = read_score_columns(scores)
        within = correlation_within(columns.scores[REWARD], columns.num_tokens, columns.prompt_ids)
        numbers["length/problems"] = len(within) / base.samples.num_problems
        numbers[f"length/{name}"] = float(np.mean(within)) if within else 0.0
        if name != HEAD:
            if world.scale.is_lab:
                numbers[f"lowest-is-first-wrong/{name}"] = base.lowest_is_first_wrong(scores)
            numbers[f"minimum-is-last/{name}"] = minimum_is_last(columns)
            numbers["minimum-is-last/chance"] = float((1 / np.diff(columns.step_offsets)).mean())
    chosen = {name: choose_aggregate(variants.dev, variants.dev_scores[name]) for name in (IMPLICIT, HEAD)}
    for policy, responses in variants.test.items():
        bed = TestBed(responses, world.scale.n)
        single, oracle = bed.pass_at(1), bed.pass_at(max(bed.ns))
        for name, aggregate in chosen.items():
            scores = variants.test_scores[name][policy]
            accuracy = float(np.mean(list(bed.accuracy(scores, aggregate).values())))
            key = f"generator/{policy}/{name}"
            numbers[f"{key}/accuracy"] = accuracy
            numbers[f"{key}/gain"] = (accuracy - single) / max(oracle - single, 1e-9)
            numbers[f"{key}/auc"] = bed.outcome_auc(scores, aggregate)
        numbers[f"generator/{policy}/pass@1"] = single
    return numbers | over_optimisation.measure(world, choices)


def correlation_within(
    rewards: NDArray[np.float64], lengths: NDArray[np.int64], problems: Sequence[str]
) -> list[float]:
    """Spearman's correlation of reward with length for each problem whose responses differ in length."""
    rows: dict[str, list[int]] = {}
    for row, problem in enumerate(problems):
        rows.setdefault(problem, []).append(row)
    correlations = [spearman(rewards[part], lengths[part]) for part in rows.values() if len(part) > 1]
    return [value for value in correlations if math.isfinite(value)]


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Tables, and what holds of what the critics say."""
    return Finding(
        name="critics",
        title="What do critics of implicit PRMs say, and does it hold here?",
        purpose=(
            "Last-step minimum, length, other generators; over-optimisation at temperature 1 without top-p, "
            "its cause, and remedies."
        ),
        differs="The paper does not study these questions; the published numbers are from the works cited.",
        tables=(_habits(seeds), _generators(seeds, scale), *optimisation_tables(seeds, scale)),
        checks=(*_habit_checks(seeds, scale), *optimisation_checks(seeds, scale)),
        plots=optimisation_plots(seeds, scale),
        notes=(
            "The strength of a remedy is chosen on development responses at temperature 1, by "
            f"best-of-{scale.largest_n}. The filter drops responses with a token that has less than 3% under "
            "the reference; truncated sampling never draws such a token; the other remedies keep "
            "all responses.",
            "Prefix supervision and off-support negatives are trained with the settings of plain CE: no "
            "search was made for them.",
        ),
    )


def _habits(seeds: Seeds) -> Table:
    published = {IMPLICIT: "over 50 (one implicit PRM)", STEP_MODEL: "17 (a PRM with process labels)"}
    return Table(
        title="Properties of the scores",
        columns=("lowest step is the last one", "published"),
        rows=tuple(
            (name, (seeds.get(f"minimum-is-last/{name}"), published.get(name)))
            for name in ("chance", IMPLICIT, "implicit-dpo", STEP_MODEL)
        ),
        caption="Per cent of the distinct test responses. Published: arXiv:2501.07301.",
    )


def _generators(seeds: Seeds, scale: Scale) -> Table:
    parts = ("accuracy", "gain", "auc")
    return Table(
        title="Generators that training did not see",
        columns=(
            "one response",
            *(f"{name}: {part.replace('auc', 'AUC')}" for name in (IMPLICIT, HEAD) for part in parts),
        ),
        rows=tuple(
            (
                policy,
                (
                    seeds.of(f"generator/{policy}/pass@1"),
                    *(
                        seeds.of(f"generator/{policy}/{name}/{part}")
                        for name in (IMPLICIT, HEAD)
                        for part in parts
                    ),
                ),
            )
            for policy in scale.generators
        ),
        caption="Per cent, mean over n. Gain: share of the difference between a single response and the "
        f"oracle that is gained. Training used responses of {scale.base}.",
    )


def _habit_checks(seeds: Seeds, scale: Scale) -> list[Check]:
    last, chance = seeds.of(f"minimum-is-last/{IMPLICIT}"), seeds.of("minimum-is-last/chance")
    length, varies = seeds.of(f"length/{IMPLICIT}"), seeds.of("length/problems")
    others = [policy for policy in scale.generators if policy != scale.base]

    head_gains = is_above(seeds.of(f"generator/{scale.base}/{HEAD}/gain")) == "holds"

    def part_kept(numbers: Measurement, policy: str, name: str) -> float:
        gain = max(numbers[f"generator/{scale.base}/{name}/gain"], SMALLEST_GAIN)
        return numbers[f"generator/{policy}/{name}/gain"] / gain

    def kept(policy: str, name: str) -> Estimate:
        return seeds.derived(lambda numbers: part_kept(numbers, policy, name))

    def extra(policy: str) -> Estimate:
        return seeds.derived(
            lambda numbers: part_kept(numbers, policy, IMPLICIT) - part_kept(numbers, policy, HEAD)
        )

    return [
        Check(
            claim="The lowest step of an implicit PRM is the last one in over half of the responses.",
            paper="over 50% for one implicit PRM, 17% with process labels (arXiv:2501.07301)",
            here=f"{format_estimate(last)}; by chance {format_estimate(chance)}",
            verdict=is_above(last, 0.5),
            why=_why_not_last(seeds),
        ),
        Check(
            claim="Among responses to one problem the reward depends on length (rank correlation above 0.1 "
            "or below -0.1).",
            paper="reported of implicit rewards",
            here=format_estimates(
                {name: seeds.of(f"length/{name}") for name in MODELS}, percent=False, digits=2
            )
            if varies.mean >= ENOUGH_PROBLEMS
            else "responses to one problem are about equally long",
            verdict=_follows(length) if varies.mean >= ENOUGH_PROBLEMS else "not measured",
            why=f"In {format_estimate(varies)}% of the problems responses differ in length at all; "
            f"{IMPLICIT} decides.",
        ),
        Check(
            claim="On responses of other generators an implicit PRM loses a larger part of its gain than a "
            "value head does.",
            paper="worse out of distribution (arXiv:2409.03650, 2507.07981)",
            here="; ".join(
                f"{policy}: keeps {format_estimate(kept(policy, IMPLICIT))}% of its gain"
                + (f" against {format_estimate(kept(policy, HEAD))}%" if head_gains else "")
                for policy in others
            )
            + ("" if head_gains else "; the value head has no significant gain to lose"),
            verdict=all_of([is_below(extra(policy)) for policy in others]) if head_gains else "not measured",
            why="Of the way from one response to the oracle the implicit PRM goes, by generator, "
            + _gains(seeds, scale, IMPLICIT)
            + "; the value head "
            + _gains(seeds, scale, HEAD)
            + ".",
        ),
    ]


def _follows(correlation: Estimate) -> Verdict:
    """Whether a correlation is further than 0.1 from 0, to either side."""
    return is_above(correlation, 0.1) if correlation.mean > 0 else is_below(correlation, -0.1)


def _gains(seeds: Seeds, scale: Scale, name: str) -> str:
    return ", ".join(
        f"{format_estimate(seeds.of(f'generator/{policy}/{name}/gain'))}% ({policy})"
        for policy in scale.generators
    )


def _why_not_last(seeds: Seeds) -> str:
    key = f"lowest-is-first-wrong/{IMPLICIT}"
    if key not in seeds:
        return ""
    share = format_estimate(seeds.of(key))
    return f"The lowest step is the first wrong one in {share}% of responses with a wrong one."


EXPERIMENT = Experiment("critics", prepare, measure, conclude)

"""KTO where its z is above 0: the claims about it, repeated.

Purpose: KTO compares rewards with z, the mean reward of responses under prompts that they do not answer, or
with 0 where that mean is negative. At the recipe's settings it nearly always is, so that the published
objective was hardly tested. Is KTO the weakest objective where z is above 0, and does voting help it most?

Differs from the paper: a setting of the optimizer, not of the objective, raises z; responses of the base
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from stepcredit_study.claims.main import KTO_WEAKEST, OBJECTIVES, kto_baseline
from stepcredit_study.claims.voting import ALONE, VOTE, WEAKEST_GAINS_MOST, extra_gain
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import TestBed, choose_aggregate
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, few_seeds, is_above
from stepcredit_study.frame.variants import Variants, accuracy_table, measure_variants, score_variants
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Check,
    Finding,
    Table,
    Verdict,
    format_estimate,
    format_estimates,
    intervals_plot,
)

SETTING: Mapping[str, Any] = {"weight_decay": 10.0}
"""What raises z."""
RAISED = "implicit-kto, z above 0"
OTHERS = tuple(name for name in OBJECTIVES if name != "implicit-kto")
COMPARED = (*OTHERS, RAISED)
"""The objectives of the claims, with KTO at the setting."""
MODELS = (*OBJECTIVES, RAISED)
MOST_ZERO = 0.5
"""KTO counts as tested only if z is 0 in at most this share of the steps of every seed."""


def prepare(world: World) -> Variants:
    """The four objectives as in the recipe, and KTO at the setting."""
    models = {name: world.train(name) for name in OBJECTIVES}
    return score_variants(world, models | {RAISED: world.train("implicit-kto", **SETTING)})


def measure(world: World, variants: Variants) -> Measurement:
    """Accuracy alone and in the weighted vote, and z."""
    numbers = measure_variants(world, variants)
    bed = TestBed(variants.test[world.scale.base], world.scale.n)
    for name, scores in variants.test_scores.items():
        aggregate = choose_aggregate(variants.dev, variants.dev_scores[name])
        votes = bed.weighted_vote(scores[world.scale.base], aggregate)
        numbers[f"{name}/{VOTE}"] = sum(votes.values()) / len(votes)
        numbers[f"{name}/{ALONE}"] = numbers[name]
    for name in ("implicit-kto", RAISED):
        for key, value in kto_baseline(variants.models[name]).items():
            numbers[f"{name}/{key.removeprefix('kto/')}"] = value
    return numbers


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Whether z is above 0, and what becomes of the two claims."""
    changed = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in SETTING.items())
    return Finding(
        name="kto",
        title="Is KTO the weakest objective where its z is above 0?",
        purpose=f"KTO at a setting that raises z, beside the other objectives{few_seeds(seeds)}.",
        differs=f"{scale.setting}; KTO's setting differs from the recipe's in this: {changed}.",
        tables=(_table(seeds, scale),),
        checks=(_is_tested(seeds), _weakest(seeds), _gains_most(seeds)),
        plots=(
            intervals_plot(
                "kto",
                "Accuracy by objective, mean over n; the line is KTO at the recipe's settings",
                "Accuracy",
                {name: seeds.of(name) for name in MODELS},
                reference=seeds.of("implicit-kto").mean,
            ),
        ),
    )


def _table(seeds: Seeds, scale: Scale) -> Table:
    return accuracy_table(
        seeds,
        scale,
        {name: (name, (seeds.of(f"{name}/{VOTE}"), seeds.get(f"{name}/z is 0"))) for name in MODELS},
        ("weighted vote", "steps with a z of 0"),
        title="Accuracy of best-of-n and of the weighted vote, and how often z is 0",
    )


def _tested(seeds: Seeds) -> bool:
    return max(seeds.of(f"{RAISED}/z is 0").values) <= MOST_ZERO


def _is_tested(seeds: Seeds) -> Check:
    usual, raised = (seeds.of(f"{name}/z is 0") for name in ("implicit-kto", RAISED))
    return Check(
        claim=f"At this setting KTO's z is above 0 in at least {100 * (1 - MOST_ZERO):.0f}% of the steps of "
        "every seed.",
        paper="not published",
        here=f"z is 0 in {format_estimate(raised)}% of the steps; at the recipe's in "
        f"{format_estimate(usual)}%",
        verdict="holds" if _tested(seeds) else "does not hold",
        why=f"The mean of z is {format_estimate(seeds.of(f'{RAISED}/z'), percent=False, digits=2)}, at the "
        f"recipe's {format_estimate(seeds.of('implicit-kto/z'), percent=False, digits=2)}.",
    )


def _verdict(seeds: Seeds, verdict: Verdict) -> Verdict:
    """The claims are about KTO with z above 0: without it they are not measured."""
    return verdict if _tested(seeds) else "not measured"


def _weakest(seeds: Seeds) -> Check:
    behind = {name: seeds.difference(name, RAISED) for name in OTHERS}
    change = seeds.difference(RAISED, "implicit-kto")
    return Check(
        claim=KTO_WEAKEST,
        paper="not at this setting",
        here=f"minus KTO at this setting: {format_estimates(behind)}",
        verdict=_verdict(seeds, all_of([is_above(gap) for gap in behind.values()])),
        why=f"The setting changes KTO's accuracy by {format_estimate(change, sign=True)}.",
    )


def _gains_most(seeds: Seeds) -> Check:
    def weakest(known: Seeds) -> str:
        return min(COMPARED, key=lambda name: known.of(name).mean)

    more = seeds.named_by_others(weakest, partial(extra_gain, among=COMPARED))
    return Check(
        claim=WEAKEST_GAINS_MOST,
        paper="not at this setting",
        here=f"difference {format_estimate(more, sign=True)} (the weakest is identified on the other seeds)",
        verdict=_verdict(seeds, is_above(more)),
        why=f"Of the four, {weakest(seeds)} is weakest alone. Vote minus alone: "
        + format_estimates({name: seeds.difference(f"{name}/{VOTE}", name) for name in COMPARED})
        + ".",
    )


EXPERIMENT = Experiment("kto", prepare, measure, conclude)

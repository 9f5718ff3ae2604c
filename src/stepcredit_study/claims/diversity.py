"""Diversity of the training data: responses of another policy, and instructions without near-duplicates.

Purpose: whether it helps that responses come from two policies instead of one, at equal numbers, and
whether it helps to leave out instructions that resemble others.

Differs from the paper: problems of the lab count as near-duplicates when they share a fifth of their
three-character pieces, so that four in ten go; what is left is compared with about as many instructions left
at random too, which separates a lack of data from a gain in diversity.
"""

from __future__ import annotations

from stepcredit.data import read_rollouts
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_below
from stepcredit_study.frame.variants import (
    DPO_AND_CE,
    MARGIN,
    Variants,
    accuracy_table,
    measure_variants,
    score_variants,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Check, Estimate, Finding, Table, format_estimate, intervals_plot

TWO_POLICIES, DISSIMILAR, RANDOM = "two policies", "no near-duplicates", "as many at random"
DATA = (TWO_POLICIES, DISSIMILAR, RANDOM)

PAPER = {"": "50.4", TWO_POLICIES: "49.9", DISSIMILAR: "48.2"}
"""Averages of DPO over generators and n, in per cent."""


def variant(method: str, data: str = "") -> str:
    """Names the model of a method trained on one of :data:`DATA`, or on the usual data."""
    return f"{method}, {data}" if data else method


def prepare(world: World) -> Variants:
    """Both objectives on the usual data, and on data that are more diverse."""
    scale, usual = world.scale, world.train_set()
    other = next(name for name in scale.generators if name != scale.base)
    half = max(1, scale.sizes.train_responses // 2)
    data = {
        "": usual,
        TWO_POLICIES: world.select(usual, world.responses("train", policy=other), responses=half),
        DISSIMILAR: world.select(usual, similar_prompts=scale.similar_prompts),
        RANDOM: world.select(usual, prompts=scale.dissimilar_share),
    }
    models = {
        variant(method, name): world.train(method, data[name]) for method in DPO_AND_CE for name in data
    }
    return score_variants(world, models, data=data)


def measure(world: World, variants: Variants) -> Measurement:
    """Best-of-n of every model, and how much data there was."""
    numbers = measure_variants(world, variants)
    for name, path in variants.data.items():
        rollouts = list(read_rollouts(path))
        right = sum(bool(rollout.correct) for rollout in rollouts)
        numbers[f"{name or 'usual'}/instructions"] = float(len({rollout.prompt_id for rollout in rollouts}))
        numbers[f"{name or 'usual'}/right"] = right / len(rollouts)
    return numbers


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """What each kind of diversity adds."""
    return Finding(
        name="diversity",
        title="Do more diverse data help?",
        purpose="Responses of two policies, and instructions without near-duplicates (finding 6).",
        differs=(
            f"{scale.setting}; the instructions that are left without near-duplicates are also "
            "compared with about as many chosen at random."
        ),
        tables=(_table(seeds, scale),),
        checks=tuple(check for method in DPO_AND_CE for check in _checks(seeds, scale, method)),
        plots=(
            intervals_plot(
                "diversity",
                "What other training data add, mean over n",
                "Accuracy minus that with the usual data",
                {
                    f"{label}, {data}": _gain(seeds, method, data)
                    for method, label in DPO_AND_CE.items()
                    for data in DATA
                },
            ),
        ),
        notes=(_left(seeds, scale),),
    )


def _table(seeds: Seeds, scale: Scale) -> Table:
    rows = {
        f"{label}, {data or 'usual data'}": (
            variant(method, data),
            (
                _gain(seeds, method, data) if data else None,
                PAPER.get(data) if method == "implicit-dpo" else None,
            ),
        )
        for method, label in DPO_AND_CE.items()
        for data in ("", *DATA)
    }
    return accuracy_table(seeds, scale, rows, ("gain", "paper's average"))


def _left(seeds: Seeds, scale: Scale) -> str:
    def number(data: str) -> str:
        return format_estimate(seeds.of(f"{data}/instructions"), percent=False, digits=0)

    return (
        f"Of {number('usual')} instructions {number(DISSIMILAR)} are left where none may share "
        f"{scale.similar_prompts:.0%} of its three-character pieces with another; {number(RANDOM)} are "
        f"left at random. {format_estimate(seeds.of('usual/right'))} per cent of the usual responses are "
        f"right, {format_estimate(seeds.of(f'{TWO_POLICIES}/right'))} of those of two policies."
    )


def _gain(seeds: Seeds, method: str, data: str, over: str = "") -> Estimate:
    return seeds.difference(variant(method, data), variant(method, over))


def _checks(seeds: Seeds, scale: Scale, method: str) -> list[Check]:
    label, published = DPO_AND_CE[method], method == "implicit-dpo"
    other = next(name for name in scale.generators if name != scale.base)
    two, left = _gain(seeds, method, TWO_POLICIES), _gain(seeds, method, DISSIMILAR)
    over_random = _gain(seeds, method, DISSIMILAR, RANDOM)
    below = f"adds less than {100 * MARGIN:.0f} points"
    return [
        Check(
            claim=f"Half the responses from another policy ({other}) do not help {label}: that {below}.",
            paper="50.4 to 49.9" if published else "not published",
            here=format_estimate(two, sign=True),
            verdict=is_below(two, MARGIN),
            why=f"{format_estimate(seeds.of('usual/right'))}% of the usual responses are right, "
            f"{format_estimate(seeds.of(f'{TWO_POLICIES}/right'))}% of those of two policies.",
        ),
        Check(
            claim=f"Leaving out near-duplicate instructions does not help {label}: that {below}.",
            paper="50.4 to 48.2" if published else "not published",
            here=f"{format_estimate(left, sign=True)}; against about as many instructions at random "
            f"{format_estimate(over_random, sign=True)}",
            verdict=all_of([is_below(left, MARGIN), is_below(over_random, MARGIN)]),
            why=f"{seeds.of(f'{DISSIMILAR}/instructions').mean:.0f} of "
            f"{seeds.of('usual/instructions').mean:.0f} instructions are left, "
            f"{seeds.of(f'{RANDOM}/instructions').mean:.0f} at random.",
        ),
    ]


EXPERIMENT = Experiment("diversity", prepare, measure, conclude)

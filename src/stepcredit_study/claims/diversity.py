"""Diversity of the training data: responses of another policy, and instructions without near-duplicates.

Purpose: whether it helps that responses come from two policies instead of one, at equal numbers, and
whether it helps to leave out instructions that resemble others.

Differs from the paper: problems of the lab count as near-duplicates when they share a fifth of their
three-character pieces, so that four in ten go; what is left is compared with about as many instructions left
at random too, which tells a lack of data from a gain in diversity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, format_estimate, is_no_gain
from stepcredit_study.frame.variants import (
    Variants,
    accuracy_cells,
    gains_plot,
    measure_variants,
    score_variants,
    scorers,
    trained_counts,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Cell, Check, Estimate, Finding, Plot, Table

METHODS = {"implicit-dpo": "DPO", "implicit-ce": "CE"}
TWO_POLICIES, DISSIMILAR, RANDOM = "two policies", "no near-duplicates", "as many at random"
DATA = (TWO_POLICIES, DISSIMILAR, RANDOM)
MARGIN = 0.02

PAPER = {
    "": "50.4",
    TWO_POLICIES: "49.9",
    DISSIMILAR: "48.2",
}
"""Averages of DPO over generators and n, in per cent."""


@dataclass(frozen=True, slots=True)
class Files:
    """Models of each objective and data set.

    Attributes:
        data: Name to training data; the usual ones under an empty name.
        models: Variant to its model.
        variants: Their scores.
    """

    data: Mapping[str, Path]
    models: Mapping[str, Path]
    variants: Variants


def variant(method: str, data: str = "") -> str:
    """Names the model of a method trained on one of :data:`DATA`, or on the usual data."""
    return f"{method}, {data}" if data else method


def prepare(world: World) -> Files:
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
    models = {variant(method, name): world.train(method, data[name]) for method in METHODS for name in data}
    return Files(data, models, score_variants(world, scorers(world, models), [scale.base]))


def measure(world: World, files: Files) -> Measurement:
    """Best-of-n of every model, and how much data there was."""
    from stepcredit.data import read_rollouts

    numbers = measure_variants(world, files.variants) | trained_counts(files.models)
    for name, path in files.data.items():
        rollouts = list(read_rollouts(path))
        numbers[f"{name or 'usual'}/instructions"] = float(len({each.prompt_id for each in rollouts}))
        numbers[f"{name or 'usual'}/right"] = sum(bool(each.correct) for each in rollouts) / len(rollouts)
    return numbers


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """What each kind of diversity adds."""
    return Finding(
        name="diversity",
        title="Do more diverse data help?",
        purpose="Responses of two policies, and instructions without near-duplicates (finding 6).",
        differs=(
            f"{scale.setting}; what is left without near-duplicates is also compared with about "
            "as many instructions at random."
        ),
        tables=(_table(seeds, scale),),
        checks=tuple(check for method in METHODS for check in _checks(seeds, scale, method)),
        plots=(_plot(seeds),),
        notes=(_left(seeds, scale),),
    )


def _table(seeds: Seeds, scale: Scale) -> Table:
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for method, label in METHODS.items():
        for data in ("", *DATA):
            name = variant(method, data)
            gain = seeds.difference(name, method) if data else None
            paper = PAPER.get(data) if method == "implicit-dpo" else None
            rows.append(
                (f"{label}, {data or 'usual data'}", (*accuracy_cells(seeds, name, scale), gain, paper))
            )
    return Table(
        title=f"Accuracy of best-of-n on responses of {scale.base}",
        columns=(*(f"@{n}" for n in scale.n), "average", "gain", "paper's average"),
        rows=tuple(rows),
        caption=f"Per cent. A single response: {format_estimate(seeds.of('pass@1'))}.",
    )


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
    label, published = METHODS[method], method == "implicit-dpo"
    other = next(name for name in scale.generators if name != scale.base)
    two, left = _gain(seeds, method, TWO_POLICIES), _gain(seeds, method, DISSIMILAR)
    over_random = _gain(seeds, method, DISSIMILAR, RANDOM)
    below = f"adds less than {100 * MARGIN:.0f} points"
    return [
        Check(
            claim=f"Half the responses from another policy ({other}) do not help {label}: that {below}.",
            paper="50.4 to 49.9" if published else "not published",
            here=format_estimate(two, sign=True),
            verdict=is_no_gain(two, MARGIN),
            why=f"{format_estimate(seeds.of('usual/right'))}% of the usual responses are right, "
            f"{format_estimate(seeds.of(f'{TWO_POLICIES}/right'))}% of those of two policies.",
        ),
        Check(
            claim=f"Leaving out near-duplicate instructions does not help {label}: that {below}.",
            paper="50.4 to 48.2" if published else "not published",
            here=f"{format_estimate(left, sign=True)}; against about as many instructions at random "
            f"{format_estimate(over_random, sign=True)}",
            verdict=all_of([is_no_gain(left, MARGIN), is_no_gain(over_random, MARGIN)]),
            why=f"{seeds.of(f'{DISSIMILAR}/instructions').mean:.0f} of "
            f"{seeds.of('usual/instructions').mean:.0f} instructions are left, "
            f"{seeds.of(f'{RANDOM}/instructions').mean:.0f} at random.",
        ),
    ]


def _plot(seeds: Seeds) -> Plot:
    return gains_plot(
        "diversity",
        "What other training data add, mean over n",
        "Accuracy less that with the usual data",
        {
            f"{label}, {data}": _gain(seeds, method, data)
            for method, label in METHODS.items()
            for data in DATA
        },
    )


EXPERIMENT = Experiment(
    name="diversity",
    title="responses of two policies, no near-duplicate instructions (finding 6)",
    prepare=prepare,
    measure=measure,
    conclude=conclude,
)

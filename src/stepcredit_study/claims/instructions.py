"""More instructions: reward models trained on 25, 50, 75 and 100 per cent of them.

Purpose: does an implicit PRM keep getting better as instructions are added?
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import sightings
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, is_above
from stepcredit_study.frame.variants import (
    DPO_AND_CE,
    Variants,
    amounts_table,
    measure_variants,
    score_variants,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Check, Finding, Plot, Table, curves_plot, format_estimate

SHARES = (0.25, 0.5, 0.75, 1.0)

PAPER: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "implicit-dpo": {
        "Mistral-7B": (25.2, 26.8, 27.2, 28.8),
        "Llama-3.1-8B": (50.0, 53.4, 53.6, 57.0),
        "Llama-3.1-70B": (70.8, 72.4, 70.4, 72.2),
    },
    "implicit-ce": {
        "Mistral-7B": (23.8, 27.0, 27.8, 28.0),
        "Llama-3.1-8B": (48.4, 51.4, 54.4, 53.0),
        "Llama-3.1-70B": (70.4, 68.2, 68.6, 67.2),
    },
}
"""Method, then generator, to best-of-64 at each share, in per cent."""


def variant(method: str, share: float) -> str:
    """Names the model of a method trained on a share of the instructions."""
    return f"{method} {share:.0%}"


def prepare(world: World) -> Variants:
    """Both objectives on each share of the instructions."""
    train_set = world.train_set()
    parts = {share: train_set if share == 1 else world.select(train_set, prompts=share) for share in SHARES}
    models = {
        variant(method, share): world.train(method, parts[share]) for method in DPO_AND_CE for share in SHARES
    }
    return score_variants(
        world, models, world.scale.generators, data={f"{share:.0%}": parts[share] for share in SHARES}
    )


def measure(world: World, variants: Variants) -> Measurement:
    """Best-of-n of every model, and how much it was trained on."""
    numbers = measure_variants(world, variants)
    if world.scale.is_lab:
        numbers |= {f"sightings/{share}": sightings(path) for share, path in variants.data.items()}
    return numbers


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """A curve for each objective and generator, and whether it rises."""
    n = scale.largest_n
    return Finding(
        name="instructions",
        title="Do more instructions help?",
        purpose="Reward models trained on a part of the instructions, with all their responses (finding 3).",
        differs=(
            f"{scale.setting}; smaller shares are contained in larger ones; the score of a response "
            "is chosen on development problems for each model."
        ),
        tables=(*(_table(seeds, scale, method) for method in DPO_AND_CE), _amounts(seeds)),
        checks=tuple(_check(seeds, method, n) for method in DPO_AND_CE),
        plots=tuple(_plot(seeds, scale, method) for method in DPO_AND_CE),
    )


def _table(seeds: Seeds, scale: Scale, method: str) -> Table:
    published = PAPER[method]
    averages = [sum(column) / len(column) for column in zip(*published.values(), strict=True)]
    return amounts_table(
        seeds,
        scale,
        f"{DPO_AND_CE[method]}: accuracy of best-of-{scale.largest_n} by share of the instructions",
        {f"{share:.0%}": variant(method, share) for share in SHARES},
        {**published, "average": averages},
    )


def _amounts(seeds: Seeds) -> Table:
    return Table(
        title="Size of an epoch",
        columns=tuple(f"{share:.0%}" for share in SHARES),
        rows=(
            ("CE: responses", tuple(seeds.of(f"{variant('implicit-ce', share)}/units") for share in SHARES)),
            ("DPO: pairs", tuple(seeds.of(f"{variant('implicit-dpo', share)}/units") for share in SHARES)),
        ),
        percent=False,
        digits=0,
    )


def _check(seeds: Seeds, method: str, n: int) -> Check:
    first, last = variant(method, SHARES[0]), variant(method, SHARES[-1])
    gain = seeds.difference(f"{last}/{n}", f"{first}/{n}")
    steps = [
        format_estimate(
            seeds.difference(f"{variant(method, later)}/{n}", f"{variant(method, earlier)}/{n}"), sign=True
        )
        for earlier, later in pairwise(SHARES)
    ]
    published = [sum(column) / len(column) for column in zip(*PAPER[method].values(), strict=True)]
    return Check(
        claim=f"{DPO_AND_CE[method]} gains from four times the instructions (best-of-{n}, mean over "
        "generators).",
        paper=f"{published[0]:.1f} to {published[-1]:.1f}",
        here=f"{format_estimate(gain, sign=True)}; quarter by quarter {', '.join(steps)}",
        verdict=is_above(gain),
        why=_why(seeds),
    )


def _why(seeds: Seeds) -> str:
    first, last = (f"sightings/{share:.0%}" for share in (SHARES[0], SHARES[-1]))
    if first not in seeds:
        return ""
    return (
        f"The responses to {SHARES[0]:.0%} of the instructions show each of their facts "
        f"{seeds.of(first).mean:.0f} times on average, those to all of them {seeds.of(last).mean:.0f} times."
    )


def _plot(seeds: Seeds, scale: Scale, method: str) -> Plot:
    n = scale.largest_n
    return curves_plot(
        f"instructions-{DPO_AND_CE[method].lower()}",
        f"{DPO_AND_CE[method]}: accuracy of best-of-{n} by number of instructions",
        ("Instructions trained on", f"Accuracy of best-of-{n}"),
        {
            policy: {
                share * scale.sizes.train_prompts: seeds.of(f"{policy}/{variant(method, share)}/{n}")
                for share in SHARES
            }
            for policy in scale.generators
        },
    )


EXPERIMENT = Experiment("instructions", prepare, measure, conclude)

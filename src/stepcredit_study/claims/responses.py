"""More responses: reward models trained on 1, 2, 4 and 8 responses to each instruction.

Purpose: does an implicit PRM gain from more responses, and does it gain more from them than from more
instructions? That is asked at equal cost: all instructions with a part of the responses, against that part
of the instructions with all responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds, all_of, is_above
from stepcredit_study.frame.variants import (
    DPO_AND_CE,
    Variants,
    amounts_table,
    measure_variants,
    score_variants,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Cell,
    Check,
    Estimate,
    Finding,
    Plot,
    Table,
    curves_plot,
    format_estimate,
)

COUNTS = {"implicit-dpo": (2, 4, 8), "implicit-ce": (1, 2, 4, 8)}
"""Responses to each instruction; with one there is no pair to compare."""
EQUAL_COST = ((0.25, 2), (0.5, 4))
"""A share of the instructions with all 8 responses, and the responses to all of them that cost as much."""

PAPER: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "implicit-dpo": {
        "Mistral-7B": (12.6, 26.0, 28.8),
        "Llama-3.1-8B": (49.8, 51.2, 57.0),
        "Llama-3.1-70B": (48.0, 70.6, 72.2),
    },
    "implicit-ce": {
        "Mistral-7B": (15.0, 23.6, 26.8, 28.0),
        "Llama-3.1-8B": (51.2, 51.6, 53.6, 53.0),
        "Llama-3.1-70B": (67.4, 71.0, 71.2, 67.2),
    },
}
"""Method, then generator, to best-of-64 at each number of responses, in per cent."""
PAPER_EQUAL_COST = {
    "implicit-dpo": "25% x 8: 48.7, 100% x 2: 36.8; 50% x 8: 50.9, 100% x 4: 49.3",
    "implicit-ce": "25% x 8: 47.5, 100% x 2: 48.7; 50% x 8: 48.9, 100% x 4: 50.5",
}
"""Means over generators of its two curves at equal cost."""


def by_responses(method: str, count: int) -> str:
    """Names the model trained on some responses to all instructions."""
    return f"{method} 100% x {count}"


def by_instructions(method: str, share: float) -> str:
    """Names the model trained on all responses to some instructions."""
    return f"{method} {share:.0%} x 8"


def prepare(world: World) -> Variants:
    """Both objectives on each number of responses, and on as many responses to fewer instructions."""
    train_set = world.train_set()
    most = world.scale.sizes.train_responses
    parts = {
        count: world.select(train_set, responses=count) if count < most else train_set
        for count in COUNTS["implicit-ce"]
    }
    models: dict[str, Path] = {
        by_responses(method, count): world.train(method, parts[count])
        for method, counts in COUNTS.items()
        for count in counts
    }
    for share, _ in EQUAL_COST:
        fewer = world.select(train_set, prompts=share)
        models |= {by_instructions(method, share): world.train(method, fewer) for method in COUNTS}
    return score_variants(world, models, world.scale.generators)


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """A curve for each objective and generator, and the two ways to spend the same."""
    n = scale.largest_n
    return Finding(
        name="responses",
        title="Do more responses help, and do they help more than more instructions?",
        purpose="Reward models trained on fewer responses to each instruction (finding 4).",
        differs=(
            f"{scale.setting}; smaller sets of responses are contained in larger ones; instructions "
            "and responses are compared between models trained on equally many responses."
        ),
        tables=(*(_table(seeds, scale, method) for method in COUNTS), _equal_cost(seeds, n)),
        checks=(
            *(_gain(seeds, method, n) for method in COUNTS),
            *(_responses_gain_more(seeds, method, n) for method in COUNTS),
        ),
        plots=(_plot(seeds, n),),
        notes=(
            "Equal cost means equally many graded responses. DPO then trains on different numbers of "
            "pairs, since each right response to an instruction is paired with each wrong one.",
        ),
    )


def _table(seeds: Seeds, scale: Scale, method: str) -> Table:
    return amounts_table(
        seeds,
        scale,
        f"{DPO_AND_CE[method]}: accuracy of best-of-{scale.largest_n} by responses to each instruction",
        {str(count): by_responses(method, count) for count in COUNTS[method]},
        PAPER[method],
    )


def _equal_cost(seeds: Seeds, n: int) -> Table:
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for method, label in DPO_AND_CE.items():
        for share, count in EQUAL_COST:
            fewer, shorter = by_instructions(method, share), by_responses(method, count)
            rows.append(
                (
                    f"{label}: {share:.0%} of the responses",
                    (
                        seeds.of(f"{fewer}/{n}"),
                        seeds.of(f"{shorter}/{n}"),
                        seeds.difference(f"{fewer}/{n}", f"{shorter}/{n}"),
                        _number(seeds, f"{fewer}/units"),
                        _number(seeds, f"{shorter}/units"),
                    ),
                )
            )
    return Table(
        title=f"The same number of responses, two ways (best-of-{n}, mean over generators)",
        columns=(
            "fewer instructions x 8",
            "all instructions, fewer each",
            "difference",
            "units in an epoch: fewer instructions",
            "units in an epoch: fewer each",
        ),
        rows=tuple(rows),
        caption="Per cent; units are responses (CE) or pairs (DPO).",
    )


def _number(seeds: Seeds, name: str) -> str:
    return format_estimate(seeds.of(name), percent=False, digits=0)


def _gain(seeds: Seeds, method: str, n: int) -> Check:
    counts = COUNTS[method]
    first, last = by_responses(method, counts[0]), by_responses(method, counts[-1])
    gain = seeds.difference(f"{last}/{n}", f"{first}/{n}")
    published = [sum(column) / len(column) for column in zip(*PAPER[method].values(), strict=True)]
    return Check(
        claim=f"{DPO_AND_CE[method]} gains from {counts[-1]} responses per instruction instead of "
        f"{counts[0]}.",
        paper=f"{published[0]:.1f} to {published[-1]:.1f}, mean over generators",
        here=format_estimate(gain, sign=True),
        verdict=is_above(gain),
        why=f"An epoch holds {_number(seeds, f'{first}/units')} and {_number(seeds, f'{last}/units')} "
        f"{'pairs' if method == 'implicit-dpo' else 'responses'}.",
    )


def _responses_gain_more(seeds: Seeds, method: str, n: int) -> Check:
    """What four (two) times the responses add, minus what four (two) times the instructions add.

    Both end at the same model, so that is the difference of where they start.
    """
    differences = {
        f"{share:.0%} of the responses": seeds.difference(
            f"{by_instructions(method, share)}/{n}", f"{by_responses(method, count)}/{n}"
        )
        for share, count in EQUAL_COST
    }
    kind = "pairs" if method == "implicit-dpo" else "responses"
    share, count = EQUAL_COST[0]
    fewer = _number(seeds, f"{by_instructions(method, share)}/units")
    shorter = _number(seeds, f"{by_responses(method, count)}/units")
    return Check(
        claim=f"{DPO_AND_CE[method]} gains more from more responses than from more instructions, at equal "
        "cost.",
        paper=PAPER_EQUAL_COST[method],
        here="fewer instructions minus fewer responses: "
        + ", ".join(
            f"{format_estimate(estimate, sign=True)} at {name}" for name, estimate in differences.items()
        ),
        verdict=all_of([is_above(estimate) for estimate in differences.values()]),
        why=f"Equal cost is equally many graded responses. An epoch of {share:.0%} x 8 holds {fewer} "
        f"{kind}, one of 100% x {count} holds {shorter}.",
    )


def _plot(seeds: Seeds, n: int) -> Plot:
    curves: dict[str, dict[float, Estimate]] = {}
    for method, label in DPO_AND_CE.items():
        by_count = {float(count): seeds.of(f"{by_responses(method, count)}/{n}") for count in COUNTS[method]}
        by_share = {8 * share: seeds.of(f"{by_instructions(method, share)}/{n}") for share, _ in EQUAL_COST}
        curves[f"{label}, all instructions"] = by_count
        curves[f"{label}, fewer instructions with all responses"] = by_share | {8.0: by_count[8]}
    return curves_plot(
        "responses",
        f"Accuracy of best-of-{n} by responses trained on, mean over generators",
        ("Responses trained on, per instruction there is", f"Accuracy of best-of-{n}"),
        curves,
    )


EXPERIMENT = Experiment("responses", prepare, measure_variants, conclude)

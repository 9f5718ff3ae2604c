"""Search: does it help to let the reward model say, step by step, which partial response to go on from?

Purpose: at equal cost, does any strategy of guided search find right answers more often than drawing whole
responses and picking the best? And does search exploit a reward model harder than picking does, where rewards
of rare tokens mean little: at temperature 1 without top-p?

Differs from the paper: it searches nothing; the claims beside the lab's are those of the works named. A
budget is a width, the number of responses held at once: 4, 16 and so on, as in the other experiments. Each
search is compared with best-of-n that spends as many generated tokens on the same problem, and with best-of-n
that spends as many operations, scoring included; ``analyses/equal_cost.py`` says how. What was measured, and
what decides, was settled beforehand (``docs/preregistration.md``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from stepcredit.data import read_rollouts
from stepcredit.searching.options import SearchOptions
from stepcredit_study.analyses.equal_cost import Picking, costs_of
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.world import Searched, World
from stepcredit_study.pages.finding import (
    Cell,
    Check,
    Estimate,
    Finding,
    Plot,
    Table,
    curves_plot,
    format_estimate,
    format_estimates,
)

MODEL = "implicit-ce"
PICK, VOTE = "best-of-n", "weighted-best-of-n"
GUIDED = ("beam", "dvts", "particle", "lookahead")
STRATEGIES = (VOTE, *GUIDED)
POOL = 2
"""Picking has so many times as many responses as the widest search holds: looking ahead costs more."""

USUAL, FREE, FLOORED = "usual", "free", "floored"
CONDITIONS = {
    USUAL: "drawn as usual",
    FREE: "at temperature 1 without top-p",
    FLOORED: "at temperature 1 without top-p, by rewards with a reference floor",
}
FLOOR = 0.3
"""What development problems choose at temperature 1 in most seeds of the experiment ``critics``."""


@dataclass(frozen=True, slots=True)
class Files:
    """Searches, by ``CONDITION/GENERATOR``.

    Attributes:
        searches: By strategy and width.
    """

    pools: Mapping[str, Searched]
    searches: Mapping[str, Mapping[tuple[str, int], Searched]]


def prepare(world: World) -> Files:
    """Every strategy at every width: with each generator as usual, with the base at temperature 1."""
    scale, prm = world.scale, world.train(MODEL)
    free = replace(scale.sampling, temperature=1.0, top_p=1.0)
    settings: dict[str, dict[str, Any]] = {
        f"{USUAL}/{policy}": {"policy": policy} for policy in scale.generators
    }
    settings[f"{FREE}/{scale.base}"] = {"sampling": free}
    settings[f"{FLOORED}/{scale.base}"] = {"sampling": free, "reference_floor": FLOOR}
    pools, searches = {}, {}
    for cell, how in settings.items():
        pools[cell] = world.searched(SearchOptions(strategy=PICK, width=POOL * scale.largest_n), prm, **how)
        searches[cell] = {
            (strategy, width): world.searched(
                SearchOptions(strategy=strategy, width=width, expand=min(width, SearchOptions().expand)),
                prm,
                **how,
            )
            for strategy in GUIDED
            for width in scale.n
        }
    return Files(pools, searches)


def measure(world: World, files: Files) -> Measurement:
    """Accuracy of every search, and of picking at its cost.

    Returns:
        ``CELL/STRATEGY/WIDTH/WHAT``, where a cell is ``CONDITION/GENERATOR`` and what is measured is
        ``accuracy``; ``tokens`` and ``operations`` per problem; ``at tokens`` and ``at operations``,
        picking's accuracy at that cost; and ``coverage``, how often a right response is a candidate.
        ``CONDITION/STRATEGY/WIDTH/WHAT`` is the mean over generators.
    """
    numbers: dict[str, float] = {}
    temperature = SearchOptions().softmax_temperature
    for cell, pool in files.pools.items():
        picking = Picking(pool)
        for n in (*world.scale.n, picking.largest):
            row = n - 1
            accuracy = float(picking.accuracies[row].mean())
            costs = {
                "tokens": float(picking.tokens[row].mean()),
                "operations": float(picking.operations[row].mean()),
            }
            same = costs | {"at tokens": accuracy, "at operations": accuracy, "coverage": picking.coverage(n)}
            numbers |= _named(f"{cell}/{PICK}/{n}", same | {"accuracy": accuracy})
            voted = picking.vote(n, temperature)
            numbers |= _named(f"{cell}/{VOTE}/{n}", same | {"accuracy": voted})
        for (strategy, width), search in files.searches[cell].items():
            numbers |= _named(f"{cell}/{strategy}/{width}", _measured(search, picking))
    means: dict[str, list[float]] = {}
    for name, value in numbers.items():
        condition, _, rest = name.split("/", 2)
        means.setdefault(f"{condition}/{rest}", []).append(value)
    return numbers | {name: float(np.mean(values)) for name, values in means.items()}


def _named(key: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{key}/{name}": value for name, value in values.items()}


def _measured(search: Searched, picking: Picking) -> dict[str, float]:
    costs = costs_of(search)
    chosen, any_right = [], dict.fromkeys(costs.problem_ids, False)
    for rollout in read_rollouts(search.graded):
        any_right[rollout.prompt_id] |= bool(rollout.correct)
        if rollout.index == 0:
            chosen.append(bool(rollout.correct))
    return {
        "accuracy": float(np.mean(chosen)),
        "tokens": float(costs.generated.mean()),
        "operations": float(costs.operations.mean()),
        "at tokens": picking.at_tokens(costs),
        "at operations": picking.at_operations(costs),
        "coverage": float(np.mean(list(any_right.values()))),
    }


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Whether each strategy beats best-of-n, as usual and at temperature 1."""
    return Finding(
        name="search",
        title="Does guided search beat best-of-n at equal cost?",
        purpose="Six strategies at equal generated tokens and at equal operations, with three generators; "
        f"and at temperature 1 without top-p, with and without a reference floor of {FLOOR}.",
        differs="The paper searches nothing; the claims beside the lab's are those of the works named. "
        f"Everything is guided by {MODEL} and the value of a partial response. A budget is a width: the "
        "number of responses held at once.",
        tables=(*(_budgets(seeds, scale, condition) for condition in CONDITIONS), _generators(seeds, scale)),
        checks=(
            *(_beats(seeds, scale, USUAL, strategy) for strategy in STRATEGIES),
            *(_beats(seeds, scale, FREE, strategy) for strategy in STRATEGIES),
            _exploits(seeds, scale),
            _floor_helps(seeds, scale),
            *(_beats(seeds, scale, FLOORED, strategy) for strategy in STRATEGIES),
        ),
        plots=tuple(_curves(seeds, scale, condition) for condition in CONDITIONS),
        notes=(
            "Accuracy of best-of-n at the cost of a search is interpolated, problem by problem, between the "
            "two numbers of responses that cost next to as much. Operations count two for each parameter and "
            "token that is drawn or scored for the first time; an implicit reward model scores with two "
            "models, and a text that comes several times is scored once.",
            "These runs count a greedy continuation that look-ahead search draws once for each step that it "
            "follows, also where steps of equal text share it, so look-ahead comes out dearer than it is.",
            f"Picking has {POOL * scale.largest_n} responses to each problem, and each of its accuracies is "
            "the exact expectation over all subsets.",
        ),
    )


def _gain(numbers: Measurement, scale: Scale, cell: str, strategy: str, *, cost: str = "tokens") -> float:
    """Accuracy of a strategy minus that of picking at equal cost, mean over widths."""
    keys = [f"{cell}/{strategy}/{width}" for width in scale.n]
    return sum(numbers[f"{key}/accuracy"] - numbers[f"{key}/at {cost}"] for key in keys) / len(keys)


_PUBLISHED = {
    VOTE: "ahead of plain best-of-n on MATH-500 (Beeching et al. 2024)",
    "beam": "ahead at small budgets, behind at large ones (arXiv:2408.03314)",
    "dvts": "ahead of beam search at large budgets (Beeching et al. 2024)",
    "particle": "ahead of beam search and weighted best-of-n (arXiv:2502.01618)",
    "lookahead": "behind at equal cost (arXiv:2408.03314)",
}
_SUBJECTS = {
    VOTE: "A weighted vote",
    "beam": "Beam search",
    "dvts": "Diverse verifier tree search",
    "particle": "Particle filtering",
    "lookahead": "Look-ahead search",
}


def _beats(seeds: Seeds, scale: Scale, condition: str, strategy: str) -> Check:
    gains = {
        f"at equal {cost}": seeds.derived(
            partial(_gain, scale=scale, cell=condition, strategy=strategy, cost=cost)
        )
        for cost in ("tokens", "operations")
    }
    where = {USUAL: "", FREE: f", {CONDITIONS[FREE]}", FLOORED: f", {CONDITIONS[FLOORED]}"}[condition]
    by_width = {
        f"width {width}": seeds.difference(
            f"{condition}/{strategy}/{width}/accuracy", f"{condition}/{strategy}/{width}/at tokens"
        )
        for width in scale.n
    }
    return Check(
        claim=f"{_SUBJECTS[strategy]} beats best-of-n at equal tokens and at equal operations{where}.",
        paper=_PUBLISHED[strategy] if condition == USUAL else "not published",
        here=format_estimates(gains),
        verdict=all_of([is_above(gain) for gain in gains.values()]),
        why=f"At equal tokens, by width: {format_estimates(by_width)}. A right response is among the "
        f"candidates for {_coverage(seeds, scale, condition, strategy)}% of the problems at width "
        f"{scale.largest_n}, among as many whole responses for "
        f"{_coverage(seeds, scale, condition, PICK)}%.",
    )


def _coverage(seeds: Seeds, scale: Scale, condition: str, strategy: str) -> str:
    return format_estimate(seeds.of(f"{condition}/{strategy}/{scale.largest_n}/coverage"))


def _exploits(seeds: Seeds, scale: Scale) -> Check:
    """Gains with the base at temperature 1 minus those of the same strategies with the base as usual."""
    usual, free = f"{USUAL}/{scale.base}", f"{FREE}/{scale.base}"

    def change(strategy: str) -> Estimate:
        return seeds.derived(
            lambda numbers: _gain(numbers, scale, free, strategy) - _gain(numbers, scale, usual, strategy)
        )

    changes = {strategy: change(strategy) for strategy in GUIDED}
    return Check(
        claim="Search exploits a reward model harder than picking does: at temperature 1 without top-p every "
        "guided strategy loses ground to best-of-n at equal tokens.",
        paper="not published",
        here=f"gain there minus gain as usual ({scale.base}): {format_estimates(changes)}",
        verdict=all_of([is_below(value) for value in changes.values()]),
    )


def _floor_helps(seeds: Seeds, scale: Scale) -> Check:
    def change(strategy: str) -> Estimate:
        keys = [f"{strategy}/{width}/accuracy" for width in scale.n]
        return seeds.derived(
            lambda numbers: (
                sum(numbers[f"{FLOORED}/{key}"] - numbers[f"{FREE}/{key}"] for key in keys) / len(keys)
            )
        )

    changes = {strategy: change(strategy) for strategy in (PICK, *GUIDED)}
    return Check(
        claim="The reference floor makes best-of-n and every guided strategy better at temperature 1 without "
        "top-p.",
        paper="not published",
        here=f"with minus without: {format_estimates(changes)}",
        verdict=all_of([is_above(value) for value in changes.values()]),
    )


def _budgets(seeds: Seeds, scale: Scale, condition: str) -> Table:
    def cells(strategy: str) -> Iterator[Cell]:
        for width in scale.n:
            key = f"{condition}/{strategy}/{width}"
            accuracy = f"{key}/accuracy"
            yield seeds.of(accuracy)
            yield f"{seeds.of(f'{key}/tokens').mean:,.0f}"
            if strategy == PICK:
                yield from (None, None)
            else:
                yield seeds.difference(accuracy, f"{key}/at tokens")
                yield seeds.difference(accuracy, f"{key}/at operations")

    columns = ("width {}", "tokens ({})", "minus best-of-n, equal tokens ({})", "equal operations ({})")
    policies = "mean over generators" if condition == USUAL else scale.base
    return Table(
        title=f"Accuracy against budget, {CONDITIONS[condition]}",
        columns=tuple(column.format(width) for width in scale.n for column in columns),
        rows=tuple((strategy, tuple(cells(strategy))) for strategy in (PICK, *STRATEGIES)),
        caption=f"Per cent, {policies}; tokens generated per problem.",
    )


def _generators(seeds: Seeds, scale: Scale) -> Table:
    return Table(
        title="Accuracy minus that of best-of-n at equal tokens, by generator, drawn as usual",
        columns=tuple(scale.generators),
        rows=tuple(
            (
                strategy,
                tuple(
                    seeds.derived(partial(_gain, scale=scale, cell=f"{USUAL}/{policy}", strategy=strategy))
                    for policy in scale.generators
                ),
            )
            for strategy in STRATEGIES
        ),
        caption="Per cent, mean over widths.",
    )


def _curves(seeds: Seeds, scale: Scale, condition: str) -> Plot:
    def curve(strategy: str) -> dict[float, Estimate]:
        widths = [*scale.n, POOL * scale.largest_n] if strategy in (PICK, VOTE) else scale.n
        keys = [f"{condition}/{strategy}/{width}" for width in widths]
        return {round(seeds.of(f"{key}/tokens").mean): seeds.of(f"{key}/accuracy") for key in keys}

    return curves_plot(
        f"search-{condition}",
        f"Accuracy against budget, {CONDITIONS[condition]}",
        ("generated tokens per problem", "Accuracy, in per cent"),
        {strategy: curve(strategy) for strategy in (PICK, *STRATEGIES)},
    )


EXPERIMENT = Experiment("search", prepare, measure, conclude)

"""What over-optimisation at temperature 1 came to: tables, claims and plots of the measurements.

What is measured, and on what, is in :mod:`stepcredit.reproduction.over_optimisation`.
"""

from __future__ import annotations

from collections.abc import Mapping

from stepcredit.reports.finding import Check, Estimate, Plot, Series, Table
from stepcredit.reproduction.over_optimisation import AGGREGATES, OPTIMISED, TRAINED_REMEDIES
from stepcredit.reproduction.remedies import AS_TRAINED, FILTER, REMEDIES
from stepcredit.reproduction.scale import Scale
from stepcredit.reproduction.seeds import Seeds, all_of, is_above, is_below, told

FIRST = OPTIMISED[0]
TRUNCATED = "truncated sampling"
ON_TRIAL = tuple(name for name in REMEDIES if name not in (AS_TRAINED, FILTER))
"""Remedies that leave sampler, responses and model alone."""

SCORED_BY = {"min": "by the lowest step", "sum": "by the sum of steps"}


def optimisation_tables(seeds: Seeds, scale: Scale) -> tuple[Table, ...]:
    """Best-of-n with every remedy, and what the rewards of first wrong steps are worth."""
    return (
        *(_remedies(seeds, scale, name, by) for name in OPTIMISED for by in AGGREGATES),
        *([_first_errors(seeds)] if f"steps/{FIRST}/{AS_TRAINED}/off support" in seeds else []),
    )


def optimisation_plots(seeds: Seeds, scale: Scale) -> tuple[Plot, ...]:
    """Accuracy over the number of responses with every remedy, by each score."""
    return tuple(_plot(seeds, scale, by) for by in AGGREGATES)


def _remedies_of(name: str) -> tuple[str, ...]:
    return (*REMEDIES, *(TRAINED_REMEDIES if name == OPTIMISED[0] else ()))


def _rise(seeds: Seeds, scale: Scale, key: str) -> Estimate:
    """What the largest n adds to the one before it."""
    return seeds.difference(f"{key}/{scale.largest_n}", f"{key}/{scale.n[-2]}")


def _remedies(seeds: Seeds, scale: Scale, name: str, by: str) -> Table:
    most, fewer = scale.largest_n, scale.n[-2]
    rows = []
    for remedy in _remedies_of(name):
        key = f"{name}/{by}/{remedy}"
        accuracy = tuple(seeds.of(f"test/{key}/{n}") for n in scale.n)
        rows.append(
            (remedy, (*accuracy, _rise(seeds, scale, f"test/{key}"), seeds.of(f"usual/{key}/{most}")))
        )
    usual = f"usual/{name}/{by}/{AS_TRAINED}"
    accuracy = tuple(seeds.of(f"{usual}/{n}") for n in scale.n)
    rows.append((TRUNCATED, (*accuracy, _rise(seeds, scale, usual), accuracy[-1])))
    return Table(
        title=f"Best-of-n at temperature 1: {name} {SCORED_BY[by]}",
        columns=(*(f"@{n}" for n in scale.n), f"@{most} less @{fewer}", f"@{most}, usual sampling"),
        rows=tuple(rows),
        caption=(
            f"Per cent. One response {told(seeds.of('test/pass@1'))}, oracle "
            f"{told(seeds.of('test/oracle'))}; {seeds.of('test/distinct').mean:.1f} of "
            f"{scale.sizes.test_responses} responses are distinct."
        ),
    )


def _first_errors(seeds: Seeds) -> Table:
    keys = [(name, kind) for name in OPTIMISED for kind in ("on support", "off support")]

    def cell(name: str, remedy: str, kind: str) -> Estimate | None:
        key = f"steps/{name}/{remedy}/{kind}"
        return seeds.of(key) if key in seeds else None

    return Table(
        title="First wrong steps against right ones at temperature 1: AUC of step rewards",
        columns=tuple(f"{name}, {kind}" for name, kind in keys),
        rows=tuple(
            (remedy, tuple(cell(name, remedy, kind) for name, kind in keys)) for remedy in _remedies_of(FIRST)
        ),
        caption="Per cent. Off support: a token of the wrong step has less than 3% under the reference.",
    )


def optimisation_checks(seeds: Seeds, scale: Scale) -> list[Check]:
    """Whether best-of-n falls, why, and what keeps it from falling."""
    most, fewer = scale.largest_n, scale.n[-2]
    cases = [(name, by) for name in OPTIMISED for by in AGGREGATES]

    def rise(remedy: str, name: str, by: str) -> Estimate:
        return _rise(seeds, scale, f"test/{name}/{by}/{remedy}")

    def all_cases(cell: dict[tuple[str, str], Estimate]) -> str:
        return "; ".join(
            f"{name} {SCORED_BY[by]} {told(each, sign=True)}" for (name, by), each in cell.items()
        )

    falls = {case: rise(AS_TRAINED, *case) for case in cases}
    enriched = {
        (name, by): seeds.difference(
            f"cause/{name}/{by}/rare among wrong picks", f"cause/{name}/{by}/rare among wrong"
        )
        for name, by in cases
    }
    first = f"cause/{FIRST}/min"
    checks = [
        Check(
            claim=f"At temperature 1 best-of-{most} falls below best-of-{fewer}.",
            paper="not measured; CE on the 70B model's responses: 70.6 / 67.0 / 67.2 at 4 / 16 / 64",
            here=all_cases(falls),
            verdict=all_of([is_below(each) for each in falls.values()]),
            why="The more responses, the more of them hold a token whose log-ratio is high by accident.",
        ),
        Check(
            claim="Tokens outside the reference's support cause it: wrong picks hold one more often than "
            "wrong responses do.",
            paper="not measured",
            here=f"{FIRST} {SCORED_BY['min']}: {told(seeds.of(f'{first}/rare among wrong picks'))} of the "
            f"wrong picks, {told(seeds.of(f'{first}/rare among wrong'))} of the wrong responses; difference: "
            + all_cases(enriched),
            verdict=all_of([is_above(each) for each in enriched.values()]),
            why=_why_off_support(seeds),
        ),
    ]
    for remedy in ON_TRIAL:
        rises = {case: rise(remedy, *case) for case in cases}
        gains = {
            (name, by): seeds.difference(
                f"test/{name}/{by}/{remedy}/{most}", f"test/{name}/{by}/{AS_TRAINED}/{most}"
            )
            for name, by in cases
        }
        checks.append(
            Check(
                claim=f"Scoring by {remedy} makes best-of-{most} better than best-of-{fewer} at temperature "
                "1, without touching the sampler.",
                paper="no remedy known",
                here=f"{all_cases(rises)}. @{most} against as trained: {all_cases(gains)}",
                verdict=all_of([is_above(each) for each in rises.values()]),
                why=_why_remedy(seeds, remedy),
            )
        )
    return checks


_WHY: Mapping[str, str] = {
    "reference-free": "Without the reference a rare token earns nothing for being rare.",
    "likelihood term": "What a rare token earns shrinks with the reference's share, but never to nothing.",
    "reference floor": "A token that the reference hardly writes earns what the model itself makes of "
    "it, and all others keep their log-ratio.",
    "lower bound": "A log-ratio counts for less the fewer such tokens training has seen.",
}
"""Remedy to what it does to a token outside the reference's support."""


def _why_remedy(seeds: Seeds, remedy: str) -> str:
    if remedy in _WHY:
        return _WHY[remedy]
    nats = seeds.of(f"cause/{FIRST}/min/ratio of rare tokens")
    return (
        "The ratios that mislead are not large: of tokens outside the support in wrong picks the median is "
        f"{told(nats, percent=False, digits=2, sign=True)} nats, which no bound reaches that leaves other "
        "tokens alone."
    )


def _why_off_support(seeds: Seeds) -> str:
    keys = {kind: f"steps/{FIRST}/{AS_TRAINED}/{kind} support" for kind in ("on", "off")}
    if not all(key in seeds for key in keys.values()):
        return ""
    return (
        f"Step rewards tell first wrong steps from right ones with AUC {told(seeds.of(keys['on']))} where "
        f"all of the wrong step is within the support, and {told(seeds.of(keys['off']))} where it is not."
    )


def _plot(seeds: Seeds, scale: Scale, by: str) -> Plot:
    return Plot(
        name=f"critics-{by}",
        title=f"{FIRST} at temperature 1 {SCORED_BY[by]}",
        kind="curves",
        x_label="responses to choose from",
        y_label="accuracy",
        x_log2=True,
        series=tuple(
            Series(
                name=remedy,
                x=tuple(map(float, scale.n)),
                y=tuple(seeds.of(f"test/{FIRST}/{by}/{remedy}/{n}") for n in scale.n),
            )
            for remedy in _remedies_of(FIRST)
        ),
    )

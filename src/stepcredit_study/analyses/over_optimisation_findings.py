"""What over-optimisation at temperature 1 came to: tables, claims and plots of the measurements.

What is measured, and on what, is in :mod:`stepcredit_study.analyses.over_optimisation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from stepcredit_study.analyses.over_optimisation import (
    AGGREGATES,
    LOWER_OF_TWO,
    OFF_SUPPORT,
    OPTIMISED,
    PREFIXES,
    TRAINED_REMEDIES,
)
from stepcredit_study.analyses.remedies import AS_TRAINED, FILTER, REMEDIES
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds, all_of, is_above, is_below
from stepcredit_study.pages.finding import Cell, Check, Estimate, Plot, Table, curves_plot, format_estimate

FIRST = OPTIMISED[0]
TRUNCATED = "truncated sampling"
ON_TRIAL = tuple(name for name in REMEDIES if name not in (AS_TRAINED, FILTER))
"""Ways to score that leave sampler, responses and model alone; the filter is what shows the cause."""

NOT_IN_PAPER = "not in the paper"

SCORED_BY = {"min": "by the lowest step", "sum": "by the sum of steps"}


def optimisation_tables(seeds: Seeds, scale: Scale) -> tuple[Table, ...]:
    """Best-of-n with every remedy, and what the rewards of first wrong steps are worth."""
    return (
        _rules(seeds),
        *(_remedies(seeds, scale, name, by) for name in OPTIMISED for by in AGGREGATES),
        *([_first_errors(seeds)] if f"steps/{FIRST}/{AS_TRAINED}/off support" in seeds else []),
    )


def optimisation_plots(seeds: Seeds, scale: Scale) -> tuple[Plot, ...]:
    """Accuracy over the number of responses with every remedy, by each score."""
    return tuple(_plot(seeds, scale, by) for by in AGGREGATES)


_RULES: Mapping[str, str] = {
    AS_TRAINED: "log pi - log pi_ref",
    FILTER: "the same, but responses with a token of pi_ref < c are ranked last",
    "clipped log-ratio": "the same, clipped to [-c, c]",
    "reference-free": "log pi",
    "likelihood term": "log pi - (1 - c) log pi_ref (arXiv:2404.01054)",
    "reference floor": "log pi - log max(pi_ref, c)",
    "lower bound": "log pi - log pi_ref - c (pi_ref^-0.5 - 1)",
    LOWER_OF_TWO: "as trained; of two models the lower reward of each step",
    PREFIXES: "as trained, but with the prefix objective",
    OFF_SUPPORT: "as trained, but with off-support negatives",
}
"""Remedy to the reward of a token in units of beta, with a strength c."""


def _rules(seeds: Seeds) -> Table:
    """What each remedy is, and the strength that was chosen."""

    def listed(strengths: Iterable[float]) -> str:
        return ", ".join(f"{strength:g}" for strength in strengths)

    def row(remedy: str) -> tuple[Cell, ...]:
        tried = REMEDIES[remedy].strengths if remedy in REMEDIES else ()
        chosen = [
            listed(seeds.of(f"strength/{FIRST}/{by}/{remedy}").values) if len(tried) > 1 else None
            for by in AGGREGATES
        ]
        return (_RULES[remedy], listed(filter(None, tried)) or None, *chosen)

    return Table(
        title="What the remedies are",
        columns=(
            "reward of a token, over beta",
            "c tried",
            *(f"c chosen in each seed, {FIRST} {SCORED_BY[by]}" for by in AGGREGATES),
        ),
        rows=tuple((remedy, row(remedy)) for remedy in _RULES),
        caption="Strengths are chosen on development responses at temperature 1.",
    )


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
        columns=(*(f"@{n}" for n in scale.n), f"@{most} minus @{fewer}", f"@{most}, top-p as usual"),
        rows=tuple(rows),
        caption=(
            f"Per cent. One response {format_estimate(seeds.of('test/pass@1'))}, oracle "
            f"{format_estimate(seeds.of('test/oracle'))}; {seeds.of('test/distinct').mean:.1f} of "
            f"{scale.sizes.test_responses} responses are distinct."
        ),
    )


def _first_errors(seeds: Seeds) -> Table:
    keys = [(name, kind) for name in OPTIMISED for kind in ("on support", "off support")]

    def cell(name: str, remedy: str, kind: str) -> Estimate | None:
        if remedy == FILTER:
            return None  # it puts every rare token below all others, whatever it is worth
        return seeds.get(f"steps/{name}/{remedy}/{kind}")

    return Table(
        title="First wrong steps against right ones at temperature 1: AUC of step rewards",
        columns=tuple(f"{name}, {kind}" for name, kind in keys),
        rows=tuple(
            (remedy, tuple(cell(name, remedy, kind) for name, kind in keys)) for remedy in _remedies_of(FIRST)
        ),
        caption="Per cent. Outside the support: a token of the wrong step has less than 3% under the "
        "reference.",
    )


def optimisation_checks(seeds: Seeds, scale: Scale) -> list[Check]:
    """Whether best-of-n falls, what causes it, and what keeps it from falling."""
    most, fewer = scale.largest_n, scale.n[-2]
    falls = _of_cases(seeds, scale, AS_TRAINED, _rises)
    enriched = {
        (name, by): seeds.difference(
            f"cause/{name}/{by}/rare among wrong picks", f"cause/{name}/{by}/rare among wrong"
        )
        for name, by in falls
    }
    first = f"cause/{FIRST}/min"
    without = _of_cases(seeds, scale, FILTER, _rises)
    return [
        Check(
            claim=f"At temperature 1 without top-p best-of-{most} falls below best-of-{fewer}.",
            paper=NOT_IN_PAPER,
            here=_format_cases(falls),
            verdict=all_of([is_below(estimate) for estimate in falls.values()]),
            why="The next two claims are about the cause.",
        ),
        Check(
            claim="A wrong response that is picked contains a token outside the reference's support more "
            "often than the wrong responses to the same problem do on average.",
            paper=NOT_IN_PAPER,
            here=f"{FIRST} {SCORED_BY['min']}: "
            f"{format_estimate(seeds.of(f'{first}/rare among wrong picks'))} of the wrong picks, "
            f"{format_estimate(seeds.of(f'{first}/rare among wrong'))} of the wrong responses; difference: "
            + _format_cases(enriched),
            verdict=all_of([is_above(estimate) for estimate in enriched.values()]),
            why=_why_off_support(seeds),
        ),
        Check(
            claim=f"Such tokens cause the fall: without the responses that contain one, best-of-{most} is "
            f"better than best-of-{fewer}, as it should be with more responses.",
            paper=NOT_IN_PAPER,
            here=_format_cases(without),
            verdict=all_of([is_above(estimate) for estimate in without.values()]),
            why="Responses, models and problems are the same; only the choice differs.",
        ),
        *(_remedy_check(seeds, scale, remedy) for remedy in (*ON_TRIAL, *TRAINED_REMEDIES, TRUNCATED)),
    ]


def _remedy_check(seeds: Seeds, scale: Scale, remedy: str) -> Check:
    """A remedy must keep best-of-n rising, and pick better than none."""
    most, fewer = scale.largest_n, scale.n[-2]
    rises = _of_cases(seeds, scale, remedy, _rises)
    gains = _of_cases(seeds, scale, remedy, _gains)
    setting = "" if remedy == TRUNCATED else " without top-p"
    return Check(
        claim=f"Remedy: {remedy}. Best-of-{most} is better than best-of-{fewer} at temperature 1{setting}, "
        "and better than without the remedy.",
        paper=NOT_IN_PAPER,
        here=f"@{most} minus @{fewer}: {_format_cases(rises)}. "
        f"@{most} minus that without: {_format_cases(gains)}",
        verdict=all_of([is_above(estimate) for estimate in (*rises.values(), *gains.values())]),
        why=_why_remedy(seeds, remedy),
    )


_Cases = dict[tuple[str, str], Estimate]
"""(Reward model, what stands for a response) to an estimate."""


def _of_cases(
    seeds: Seeds, scale: Scale, remedy: str, what: Callable[[Seeds, Scale, str, str], Estimate]
) -> _Cases:
    """One estimate a model and score; remedies that train anew are on the first model only."""
    models = OPTIMISED[:1] if remedy in TRAINED_REMEDIES else OPTIMISED
    return {(name, by): what(seeds, scale, remedy, f"{name}/{by}") for name in models for by in AGGREGATES}


def _place(remedy: str, case: str) -> str:
    """Truncated sampling is the usual one; the others choose among responses with nothing cut off."""
    return f"usual/{case}/{AS_TRAINED}" if remedy == TRUNCATED else f"test/{case}/{remedy}"


def _rises(seeds: Seeds, scale: Scale, remedy: str, case: str) -> Estimate:
    return _rise(seeds, scale, _place(remedy, case))


def _gains(seeds: Seeds, scale: Scale, remedy: str, case: str) -> Estimate:
    most = scale.largest_n
    return seeds.difference(f"{_place(remedy, case)}/{most}", f"test/{case}/{AS_TRAINED}/{most}")


def _format_cases(cells: _Cases) -> str:
    return "; ".join(
        f"{name} {SCORED_BY[by]} {format_estimate(estimate, sign=True)}"
        for (name, by), estimate in cells.items()
    )


_WHAT_IT_DOES: Mapping[str, str] = {
    "reference-free": "Without the reference no token is rewarded for being rare.",
    "likelihood term": "A part of the reference's log-probability is added back to the log-ratio.",
    "reference floor": "A token that the reference hardly ever writes is scored by the model alone, and all "
    "others keep their log-ratio.",
    "lower bound": "The fewer such tokens training has seen, the less their log-ratios count.",
    LOWER_OF_TWO: "With another training order, ratios differ if the data do not determine them.",
    PREFIXES: "Every prefix is trained to predict the outcome; all other settings are unchanged.",
    TRUNCATED: "The rarest tokens, those beyond top-p, are never drawn.",
}
"""What a remedy does to a token outside the reference's support, whatever comes of it."""


def _why_remedy(seeds: Seeds, remedy: str) -> str:
    if remedy == OFF_SUPPORT:
        return (
            "One response to each instruction is a wrong one drawn at temperature 1.5, of which "
            f"{format_estimate(seeds.of('negatives/rare'))}% hold a token outside the support."
        )
    if remedy in _WHAT_IT_DOES:
        return _WHAT_IT_DOES[remedy]
    nats = seeds.of(f"cause/{FIRST}/min/ratio of rare tokens")
    return (
        "No ratio counts beyond a bound of 0.25 to 4 nats; of tokens outside the support in wrong picks the "
        f"median ratio is {format_estimate(nats, percent=False, digits=2, sign=True)} nats."
    )


def _why_off_support(seeds: Seeds) -> str:
    keys = {kind: f"steps/{FIRST}/{AS_TRAINED}/{kind} support" for kind in ("on", "off")}
    if not all(key in seeds for key in keys.values()):
        return ""
    return (
        "Step rewards separate first wrong steps from right ones with AUC "
        f"{format_estimate(seeds.of(keys['on']))} where all of the wrong step is within the support, and "
        f"{format_estimate(seeds.of(keys['off']))} where it is not."
    )


def _plot(seeds: Seeds, scale: Scale, by: str) -> Plot:
    return curves_plot(
        f"critics-{by}",
        f"{FIRST} at temperature 1 {SCORED_BY[by]}",
        ("responses to choose from", "accuracy"),
        {
            remedy: {n: seeds.of(f"test/{FIRST}/{by}/{remedy}/{n}") for n in scale.n}
            for remedy in _remedies_of(FIRST)
        },
    )

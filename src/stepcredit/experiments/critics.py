"""What critics say of implicit PRMs, measured; and remedies for over-optimisation.

Purpose: does the lowest step degenerate to the last one, does reward follow length, does an implicit PRM
generalise worse to other generators than a value head; and why does choosing from more responses at
temperature 1 pick worse ones, and what keeps it from doing so without touching the sampler?

Differs from the paper: it asks none of this. The numbers beside the lab's are those of the works named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepcredit.evaluation.score_columns import REWARD, read_score_columns
from stepcredit.reports.finding import Check, Estimate, Finding, Plot, Series, Table
from stepcredit.reproduction import over_optimisation
from stepcredit.reproduction.experiment import Experiment
from stepcredit.reproduction.measuring import TestBed, choose_aggregate, minimum_is_last
from stepcredit.reproduction.over_optimisation import AGGREGATES, OPTIMISED, TRAINED_REMEDIES, Choices
from stepcredit.reproduction.remedies import AS_TRAINED, FILTER, REMEDIES
from stepcredit.reproduction.scale import Scale
from stepcredit.reproduction.seeds import Measurement, Seeds, all_of, is_above, is_below, told
from stepcredit.reproduction.world import Responses, World
from stepcredit.stats import spearman

IMPLICIT, HEAD, STEP_MODEL = "implicit-ce", "outcome-head", "math-shepherd"
MODELS = (IMPLICIT, "implicit-dpo", HEAD, STEP_MODEL)
TRUNCATED = "truncated sampling"
ON_TRIAL = tuple(name for name in REMEDIES if name not in (AS_TRAINED, FILTER))
"""Remedies that leave sampler, responses and model alone."""

SCORED_BY = {"min": "by the lowest step", "sum": "by the sum of steps"}


@dataclass(frozen=True, slots=True)
class Files:
    """Scores, and choices at temperature 1.

    Attributes:
        dev: Development responses drawn as for training.
        dev_scores: Model to its scores of them.
        test: Generator to its responses, drawn as usual.
        scores: Generator, then model, to its scores.
        choices: Of the base at temperature 1.
    """

    dev: Path
    dev_scores: Mapping[str, Path]
    test: Mapping[str, Responses]
    scores: Mapping[str, Mapping[str, Path]]
    choices: Choices


def prepare(world: World) -> Files:
    """The usual models, and three more CE models against over-optimisation."""
    labelled = {STEP_MODEL: world.math_shepherd()}
    models = {name: world.train(name, labelled.get(name)) for name in MODELS}
    dev = world.dev_set()
    test = {policy: world.test_set(policy) for policy in world.scale.generators}
    return Files(
        dev=dev,
        dev_scores={name: world.score(dev, prm) for name, prm in models.items()},
        test=test,
        scores={
            policy: {name: world.score(responses.distinct, prm) for name, prm in models.items()}
            for policy, responses in test.items()
        },
        choices=over_optimisation.prepare(world, test[world.scale.base]),
    )


def measure(world: World, files: Files) -> Measurement:
    """Everything that critics name, then choices at temperature 1 with each remedy."""
    base = TestBed(files.test[world.scale.base], world.scale.n)
    right = {each.id: bool(each.correct) for each in base.distinct}
    numbers: dict[str, float] = {}
    for name, scores in files.scores[world.scale.base].items():
        columns = read_score_columns(scores)
        correlation = spearman(columns.scores[REWARD], columns.num_tokens)
        numbers[f"length/{name}"] = 0.0 if math.isnan(correlation) else correlation
        is_right = np.array([float(right[identifier]) for identifier in columns.ids])
        correlation = spearman(is_right, columns.num_tokens)
        numbers["length/a right answer"] = 0.0 if math.isnan(correlation) else correlation
        if name != HEAD:
            if world.scale.is_lab:
                numbers[f"lowest-is-first-wrong/{name}"] = base.lowest_is_first_wrong(scores)
            numbers[f"minimum-is-last/{name}"] = minimum_is_last(columns)
            numbers["minimum-is-last/chance"] = float((1 / np.diff(columns.step_offsets)).mean())
    chosen = {name: choose_aggregate(files.dev, files.dev_scores[name]) for name in (IMPLICIT, HEAD)}
    for policy, responses in files.test.items():
        bed = TestBed(responses, world.scale.n)
        single, oracle = bed.pass_at(1), bed.pass_at(max(bed.ns))
        for name, aggregate in chosen.items():
            scores = files.scores[policy][name]
            accuracy = float(np.mean(list(bed.accuracy(scores, aggregate).values())))
            key = f"generator/{policy}/{name}"
            numbers[f"{key}/accuracy"] = accuracy
            numbers[f"{key}/gain"] = (accuracy - single) / max(oracle - single, 1e-9)
            numbers[f"{key}/auc"] = bed.outcome_auc(scores, aggregate)
        numbers[f"generator/{policy}/pass@1"] = single
    return numbers | over_optimisation.measure(world, files.choices)


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Tables, and what holds of what the critics say."""
    return Finding(
        name="critics",
        title="What do critics of implicit PRMs say, and does it hold here?",
        purpose=(
            "Last-step minimum, length, other generators; over-optimisation at temperature 1, its cause, and "
            "remedies."
        ),
        differs="The paper asks none of this; numbers beside the lab's are those of the works named.",
        tables=(
            _habits(seeds),
            _generators(seeds, scale),
            *(_remedies(seeds, scale, name, by) for name in OPTIMISED for by in AGGREGATES),
            *([_first_errors(seeds)] if f"steps/{IMPLICIT}/{AS_TRAINED}/off support" in seeds else []),
        ),
        checks=(*_habit_checks(seeds, scale), *_optimisation_checks(seeds, scale)),
        plots=tuple(_plot(seeds, scale, by) for by in AGGREGATES),
        notes=(
            "The strength of a remedy is chosen on development responses at temperature 1, by "
            f"best-of-{scale.largest_n}. The filter drops responses with a token that the reference gives "
            "less than 3%; truncated sampling never draws one; the others keep all responses.",
            "Prefix supervision and off-support negatives are trained with the settings of plain CE: no "
            "search was made for them.",
        ),
    )


def _habits(seeds: Seeds) -> Table:
    def cell(name: str) -> Estimate | None:
        return seeds.of(name) if name in seeds else None

    published = {IMPLICIT: "over 50 (one implicit PRM)", STEP_MODEL: "17 (a PRM with process labels)"}
    return Table(
        title="Habits of scores",
        columns=("lowest step is the last", "published", "correlation of reward with length"),
        rows=tuple(
            (name, (cell(f"minimum-is-last/{name}"), published.get(name), cell(f"length/{name}")))
            for name in ("chance", *MODELS)
        ),
        caption="Per cent. Published: arXiv:2501.07301. Spearman's correlation over distinct test responses.",
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
        caption="Per cent, mean over n. Gain: share of the way from one response to the oracle. Training "
        f"saw {scale.base}.",
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
            (remedy, tuple(cell(name, remedy, kind) for name, kind in keys))
            for remedy in _remedies_of(IMPLICIT)
        ),
        caption="Per cent. Off support: a token of the wrong step has less than 3% under the reference.",
    )


def _habit_checks(seeds: Seeds, scale: Scale) -> list[Check]:
    last, chance = seeds.of(f"minimum-is-last/{IMPLICIT}"), seeds.of("minimum-is-last/chance")
    length = seeds.of(f"length/{IMPLICIT}")
    others = [policy for policy in scale.generators if policy != scale.base]

    def lost(numbers: Measurement, policy: str, name: str) -> float:
        return numbers[f"generator/{scale.base}/{name}/gain"] - numbers[f"generator/{policy}/{name}/gain"]

    def loss(policy: str, name: str) -> Estimate:
        return seeds.derived(lambda each: lost(each, policy, name))

    def extra_loss(policy: str) -> Estimate:
        return seeds.derived(lambda each: lost(each, policy, IMPLICIT) - lost(each, policy, HEAD))

    return [
        Check(
            claim="The lowest step of an implicit PRM is the last one in over half of the responses.",
            paper="over 50% for one implicit PRM, 17% with process labels (arXiv:2501.07301)",
            here=f"{told(last)}; by chance {told(chance)}",
            verdict=is_above(last, 0.5),
            why=_why_not_last(seeds),
        ),
        Check(
            claim="The reward follows length (rank correlation further than 0.1 from 0).",
            paper="reported of implicit rewards",
            here=", ".join(f"{name} {told(seeds.of(f'length/{name}'))}" for name in MODELS),
            verdict=is_above(length, 0.1) if length.mean > 0 else is_below(length, -0.1),
            why="More steps leave more room for errors: being right itself correlates with length by "
            f"{told(seeds.of('length/a right answer'), sign=True)}.",
        ),
        Check(
            claim="On other generators' responses an implicit PRM loses more of its gain than a value head.",
            paper="worse out of distribution (arXiv:2409.03650, 2507.07981)",
            here="; ".join(
                f"{policy}: lost {told(loss(policy, IMPLICIT))} against {told(loss(policy, HEAD))}"
                for policy in others
            ),
            verdict=all_of([is_above(extra_loss(policy)) for policy in others]),
            why=f"On {scale.base}'s responses the implicit PRM goes {_gain(seeds, scale.base, IMPLICIT)}% of "
            f"the way from one response to the oracle and the value head {_gain(seeds, scale.base, HEAD)}%; "
            "who has gained little has little to lose. "
            + "; ".join(
                f"{policy}: {_gain(seeds, policy, IMPLICIT)} against {_gain(seeds, policy, HEAD)}"
                for policy in others
            )
            + ".",
        ),
    ]


def _gain(seeds: Seeds, policy: str, name: str) -> str:
    return told(seeds.of(f"generator/{policy}/{name}/gain"))


def _why_not_last(seeds: Seeds) -> str:
    key = f"lowest-is-first-wrong/{IMPLICIT}"
    if key not in seeds:
        return ""
    return (
        f"The lowest step is the first wrong one in {told(seeds.of(key))}% of the responses with a wrong "
        "step: the error is where the outcome is decided, and the last step only repeats the digit before it."
    )


def _optimisation_checks(seeds: Seeds, scale: Scale) -> list[Check]:
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
    first = f"cause/{IMPLICIT}/min"
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
            here=f"{IMPLICIT} {SCORED_BY['min']}: {told(seeds.of(f'{first}/rare among wrong picks'))} of the "
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
    nats = seeds.of(f"cause/{IMPLICIT}/min/ratio of rare tokens")
    return (
        "The ratios that mislead are not large: of tokens outside the support in wrong picks the median is "
        f"{told(nats, percent=False, digits=2, sign=True)} nats, which no bound reaches that leaves other "
        "tokens alone."
    )


def _why_off_support(seeds: Seeds) -> str:
    keys = {kind: f"steps/{IMPLICIT}/{AS_TRAINED}/{kind} support" for kind in ("on", "off")}
    if not all(key in seeds for key in keys.values()):
        return ""
    return (
        f"Step rewards tell first wrong steps from right ones with AUC {told(seeds.of(keys['on']))} where "
        f"all of the wrong step is within the support, and {told(seeds.of(keys['off']))} where it is not."
    )


def _plot(seeds: Seeds, scale: Scale, by: str) -> Plot:
    return Plot(
        name=f"critics-{by}",
        title=f"{IMPLICIT} at temperature 1 {SCORED_BY[by]}",
        kind="curves",
        x_label="responses to choose from",
        y_label="accuracy",
        x_log2=True,
        series=tuple(
            Series(
                name=remedy,
                x=tuple(map(float, scale.n)),
                y=tuple(seeds.of(f"test/{IMPLICIT}/{by}/{remedy}/{n}") for n in scale.n),
            )
            for remedy in _remedies_of(IMPLICIT)
        ),
    )


EXPERIMENT = Experiment(
    name="critics",
    title="last-step minimum, length, other generators, over-optimisation at temperature 1",
    prepare=prepare,
    measure=measure,
    conclude=conclude,
)

"""Reward models that differ in one thing, compared on the same responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stepcredit.runs import read_manifest
from stepcredit_study.frame.measuring import TestBed, choose_aggregate
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds
from stepcredit_study.frame.world import Responses, World
from stepcredit_study.pages.finding import Estimate, Plot, Series

Scorer = Callable[[Path], Path]
"""Rollouts to their scores."""


@dataclass(frozen=True, slots=True)
class Variants:
    """Scores of every variant.

    Attributes:
        dev: Development responses.
        test: Generator to its responses.
        dev_scores: Variant to its scores of the development responses.
        test_scores: Variant, then generator, to its scores.
    """

    dev: Path
    test: Mapping[str, Responses]
    dev_scores: Mapping[str, Path]
    test_scores: Mapping[str, Mapping[str, Path]]


def scorers(world: World, models: Mapping[str, Path]) -> dict[str, Scorer]:
    """Variant to what its model makes of rollouts, in the usual way."""
    return {name: partial(world.score, prm=model) for name, model in models.items()}


def score_variants(world: World, scorers: Mapping[str, Scorer], policies: Iterable[str]) -> Variants:
    """Ask for the scores of development and test responses.

    Args:
        world: Where the responses come from.
        scorers: Variant to what scores for it.
        policies: Generators whose responses to choose from.
    """
    dev = world.dev_set()
    test = {policy: world.test_set(policy) for policy in policies}
    return Variants(
        dev=dev,
        test=test,
        dev_scores={name: score(dev) for name, score in scorers.items()},
        test_scores={
            name: {policy: score(responses.distinct) for policy, responses in test.items()}
            for name, score in scorers.items()
        },
    )


def measure_variants(world: World, variants: Variants) -> dict[str, float]:
    """Best-of-n of every variant, by the aggregate that is best on development problems.

    Returns:
        ``POLICY/pass@1``; ``POLICY/oracle/N`` and ``POLICY/VARIANT/N``; their means over generators
        ``pass@1`` and ``VARIANT/N``; and ``VARIANT``, the mean over generators and n.
    """
    chosen = {name: choose_aggregate(variants.dev, scores) for name, scores in variants.dev_scores.items()}
    numbers: dict[str, float] = {}
    ns: tuple[int, ...] = ()
    for policy, responses in variants.test.items():
        bed = TestBed(responses, world.scale.n)
        ns = bed.ns
        numbers[f"{policy}/pass@1"] = bed.pass_at(1)
        numbers |= {f"{policy}/oracle/{n}": bed.pass_at(n) for n in ns}
        for name, aggregate in chosen.items():
            accuracy = bed.accuracy(variants.test_scores[name][policy], aggregate)
            numbers |= {f"{policy}/{name}/{n}": value for n, value in accuracy.items()}
    numbers["pass@1"] = _mean(numbers[f"{policy}/pass@1"] for policy in variants.test)
    for name in chosen:
        for n in ns:
            numbers[f"{name}/{n}"] = _mean(numbers[f"{policy}/{name}/{n}"] for policy in variants.test)
        numbers[name] = _mean(numbers[f"{name}/{n}"] for n in ns)
    return numbers


def accuracy_cells(seeds: Seeds, name: str, scale: Scale) -> tuple[Estimate, ...]:
    """A variant's accuracy at each n, and its mean over n."""
    return (*(seeds.of(f"{name}/{n}") for n in scale.n), seeds.of(name))


def gains_plot(name: str, title: str, x_label: str, gains: Mapping[str, Estimate]) -> Plot:
    """What each of some changes adds, beside nothing."""
    return Plot(
        name=name,
        title=title,
        kind="intervals",
        x_label=x_label,
        series=tuple(Series(name=label, y=(gain,)) for label, gain in gains.items()),
        reference=0.0,
    )


def trained_counts(models: Mapping[str, Path]) -> dict[str, float]:
    """How much each model was trained on.

    Returns:
        ``VARIANT/responses`` that could be used, and ``VARIANT/units`` of an epoch: responses, or pairs
        for objectives that compare two.
    """
    numbers: dict[str, float] = {}
    for name, model in models.items():
        counts = (read_manifest(model) or {})["counts"]
        numbers[f"{name}/responses"] = float(counts["examples"])
        numbers[f"{name}/units"] = float(counts["units"])
    return numbers


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)

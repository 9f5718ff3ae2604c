"""Reward models that differ in one thing, compared on the same responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stepcredit.runs import read_manifest
from stepcredit_study.frame.measuring import TestBed, choose_aggregate
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds
from stepcredit_study.frame.world import Responses, World
from stepcredit_study.pages.finding import Cell, Table, format_estimate

DPO_AND_CE = {"implicit-dpo": "DPO", "implicit-ce": "CE"}
"""The objectives that most of the paper's comparisons are made with, and how tables call them."""
MARGIN = 0.02
"""A change that adds less is said not to help."""

Scorer = Callable[[Path], Path]
"""Rollouts to their scores."""


@dataclass(frozen=True, slots=True)
class Variants:
    """Scores of every variant.

    Attributes:
        dev_scores: Variant to its scores of the development responses.
        models: Variant to its model, where it has one of its own.
        data: Name to training data whose contents are measured too.
    """

    dev: Path
    test: Mapping[str, Responses]
    dev_scores: Mapping[str, Path]
    test_scores: Mapping[str, Mapping[str, Path]]
    models: Mapping[str, Path] = field(default_factory=dict)
    data: Mapping[str, Path] = field(default_factory=dict)


def score_variants(
    world: World,
    variants: Mapping[str, Path | Scorer],
    policies: Iterable[str] | None = None,
    *,
    data: Mapping[str, Path] | None = None,
) -> Variants:
    """Ask for the scores of development and test responses.

    Args:
        variants: Variant to its model, or to what scores for it.
        policies: Generators whose responses to choose from; the base by default.
        data: Name to training data whose contents are measured too.
    """
    scorers = {
        name: partial(world.score, prm=way) if isinstance(way, Path) else way
        for name, way in variants.items()
    }
    dev = world.dev_set()
    test = {policy: world.test_set(policy) for policy in policies or [world.scale.base]}
    return Variants(
        dev=dev,
        test=test,
        dev_scores={name: score(dev) for name, score in scorers.items()},
        test_scores={
            name: {policy: score(responses.distinct) for policy, responses in test.items()}
            for name, score in scorers.items()
        },
        models={name: way for name, way in variants.items() if isinstance(way, Path)},
        data=data or {},
    )


def measure_variants(world: World, variants: Variants) -> dict[str, float]:
    """Best-of-n of every variant, by the aggregate that is best on development problems.

    Returns:
        ``POLICY/pass@1``; ``POLICY/oracle/N`` and ``POLICY/VARIANT/N``; their means over generators
        ``pass@1`` and ``VARIANT/N``; ``VARIANT``, the mean over generators and n; and of every model
        ``VARIANT/responses`` that could be used in training, and ``VARIANT/units`` of an epoch: responses, or
        pairs for objectives that compare two.
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
    for name, model in variants.models.items():
        counts = (read_manifest(model) or {})["counts"]
        numbers[f"{name}/responses"] = float(counts["examples"])
        numbers[f"{name}/units"] = float(counts["units"])
    return numbers


def accuracy_table(
    seeds: Seeds,
    scale: Scale,
    rows: Mapping[str, tuple[str, tuple[Cell, ...]]],
    columns: Sequence[str],
    *,
    of: str = "",
    title: str | None = None,
    caption: str = "",
) -> Table:
    """Accuracy of best-of-n by variant.

    Args:
        rows: What a row is called, to its variant and further cells.
        of: Ends the usual title.
        title: Takes its place.
        caption: Ends the caption.
    """

    def cells(name: str) -> tuple[Cell, ...]:
        return (*(seeds.of(f"{name}/{n}") for n in scale.n), seeds.of(name))

    return Table(
        title=title or f"Accuracy of best-of-n on responses of {scale.base}{of}",
        columns=(*(f"@{n}" for n in scale.n), "average", *columns),
        rows=tuple((label, (*cells(name), *more)) for label, (name, more) in rows.items()),
        caption=f"Per cent. A single response: {format_estimate(seeds.of('pass@1'))}.{caption}",
    )


def amounts_table(
    seeds: Seeds,
    scale: Scale,
    title: str,
    variants: Mapping[str, str],
    published: Mapping[str, Sequence[float]],
) -> Table:
    """Accuracy of best-of-n, n as large as it gets, by generator and amount of data.

    Args:
        published: Row of the paper's table to its numbers in per cent.
    """
    n = scale.largest_n
    names = variants.values()
    return Table(
        title=title,
        columns=tuple(variants),
        rows=(
            *(
                (policy, tuple(seeds.of(f"{policy}/{name}/{n}") for name in names))
                for policy in scale.generators
            ),
            ("average", tuple(seeds.of(f"{name}/{n}") for name in names)),
            *(
                (f"paper: {name}", tuple(f"{value:.1f}" for value in values))
                for name, values in published.items()
            ),
        ),
        caption="Per cent; the paper's are best-of-64.",
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)

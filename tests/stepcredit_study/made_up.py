"""Measurements made up for conclusions, and experiments run or planned in a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from stepcredit.pipelines.driver import Plan, Store
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import read_scale
from stepcredit_study.frame.seeds import Measurement, Seeds
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Check, Estimate, Finding


class MadeUp(Mapping[str, float]):
    """A measurement that has a number for every name, and lists those that it is asked to."""

    def __init__(self, rule: Callable[[str], float], shift: float, listed: tuple[str, ...] = ()) -> None:
        self._rule, self._shift, self._listed = rule, shift, listed

    def __getitem__(self, name: str) -> float:
        # Seeds differ in what is common to all numbers, and a little in their differences.
        return self._rule(name) + self._shift * (1 + 0.001 * (len(name) % 7))

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def made_up(rule: Callable[[str], float], listed: tuple[str, ...] = ()) -> Seeds:
    """Five seeds that agree on a number for each name, but for a shift of all of them."""
    return Seeds([MadeUp(rule, 0.01 * seed, listed) for seed in range(5)])


def verdicts(finding: Finding) -> list[str]:
    """One a check, in order."""
    return [check.verdict for check in finding.checks]


def check_of(finding: Finding, words: str) -> Check:
    """The only check whose claim has these words."""
    (only,) = [check for check in finding.checks if words in check.claim]
    return only


def run_twice(experiment: Experiment, world: World) -> tuple[Measurement, Finding]:
    """What it measures in a world, and what it concludes if two seeds give that."""
    numbers = experiment.measure(world, experiment.prepare(world))
    assert all(math.isfinite(value) for value in numbers.values())
    finding = experiment.conclude(Seeds([numbers, numbers]), world.scale)
    for table in finding.tables:
        assert all(len(cells) == len(table.columns) for _, cells in table.rows), table.title
    for plot in finding.plots:
        assert all(isinstance(value, Estimate) for series in plot.series for value in series.y)
    return numbers, finding


def planned(experiment: Experiment, root: Path) -> list[str]:
    """The commands of an experiment at the paper's scale, none of which is run."""
    plan = Plan()
    experiment.prepare(World(read_scale("paper"), Store(root, plan), seed=0))
    return [command for command, _ in plan.steps]

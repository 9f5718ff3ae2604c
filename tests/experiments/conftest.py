"""A tiny lab that the experiments' tests share, and measurements made up for their conclusions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.reproduction.experiment import Experiment
from stepcredit.reproduction.scale import Scale, read_scale, resized
from stepcredit.reproduction.seeds import Measurement, Seeds
from stepcredit.reproduction.store import Plan, Store
from stepcredit.reproduction.world import World

SIZES = {
    "train_prompts": 12,
    "train_responses": 4,
    "dev_prompts": 4,
    "test_prompts": 4,
    "test_responses": 8,
    "completions": 2,
}


@pytest.fixture(scope="session")
def tiny_scale() -> Scale:
    """The lab's recipe at sizes that run in seconds, with two generators."""
    scale = resized(read_scale("lab"), SIZES)
    generators = {name: scale.generators[name] for name in ("weak", "mid")}
    training = {**scale.training, "epochs": 1}
    return replace(scale, n=(2, 4), generators=generators, training=training)


@pytest.fixture(scope="session")
def tiny_world(tiny_scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One seed of it; what one test makes the others find."""
    return World(tiny_scale, Store(tmp_path_factory.mktemp("tiny-world")), seed=0)


class MadeUp(Mapping[str, float]):
    """A measurement that has a number for every name."""

    def __init__(self, rule: Callable[[str], float], shift: float) -> None:
        self._rule, self._shift = rule, shift

    def __getitem__(self, name: str) -> float:
        # Seeds differ in what is common to all numbers, and a little in their differences.
        return self._rule(name) + self._shift * (1 + 0.001 * (len(name) % 7))

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


MakeSeeds = Callable[[Callable[[str], float]], Seeds]


@pytest.fixture
def made_up() -> MakeSeeds:
    """From a rule that gives a number for each name, five seeds that agree on it but for a common shift."""
    return lambda rule: Seeds([MadeUp(rule, 0.01 * seed) for seed in range(5)])


def measured(experiment: Experiment, world: World) -> Measurement:
    """What an experiment measures in a world."""
    return experiment.measure(world, experiment.prepare(world))


def planned(experiment: Experiment, root: Path) -> list[str]:
    """The commands of an experiment at the paper's scale, of which nothing is run."""
    plan = Plan()
    experiment.prepare(World(read_scale("paper"), Store(root, plan), seed=0))
    return [command for command, _ in plan.steps]

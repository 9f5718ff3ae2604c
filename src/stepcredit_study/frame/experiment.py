"""What every experiment is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Finding


@dataclass(frozen=True, slots=True)
class Experiment:
    """One claim, or several that need the same files.

    Attributes:
        name: As on the command line.
        prepare: Asks a world for every file that the experiment needs; it reads none of them, so that it
            also makes the plan of a run that is too large for this machine.
        measure: Turns those files into one seed's numbers.
        conclude: Turns the numbers of all seeds into tables, plots and verdicts.
        lab_only: It needs the truth that only the lab has.
    """

    name: str
    prepare: Callable[[World], Any]
    measure: Callable[[World, Any], Measurement]
    conclude: Callable[[Seeds, Scale], Finding]
    lab_only: bool = False


def load_experiment(module: str) -> Experiment:
    """The ``EXPERIMENT`` of a module."""
    experiment = import_module(module).EXPERIMENT
    assert isinstance(experiment, Experiment)
    return experiment

"""What is chosen on development problems: a method's settings, its aggregate, its vote's temperature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepcredit.stats import VoteSubsets, sigmoid
from stepcredit_study.frame.measuring import TestBed
from stepcredit_study.frame.world import Responses
from stepcredit_study.word_problems.evidence import best_aggregate
from stepcredit_study.word_problems.scale import METHODS
from stepcredit_study.word_problems.world import WordWorld

TEMPERATURES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""In units of the spread of the development scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a method uses on test problems.

    Attributes:
        settings: Training settings that differ from the method's usual ones.
        auc: On development problems: within a problem, length regressed out.
        tried: Each setting with its AUC by the best aggregate.
    """

    settings: Mapping[str, float]
    aggregate: str
    auc: float
    temperature: float
    tried: tuple[tuple[Mapping[str, float], float], ...]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "settings": dict(self.settings),
            "aggregate": self.aggregate,
            "development auc": self.auc,
            "temperature": self.temperature,
            "tried": [{**settings, "auc": auc} for settings, auc in self.tried],
        }


def choose(world: WordWorld, method: str) -> Chosen:
    """Train a method with each of its settings, and keep what is best on development problems."""
    dev = world.dev_set()
    reference = world.reference_scores(dev)
    tried: list[tuple[Mapping[str, float], str, float, Path]] = []

    def attempt(settings: Mapping[str, float]) -> None:
        scores = world.score(dev, world.train(method, settings))
        aggregate, auc = best_aggregate(dev, reference, scores)
        tried.append((settings, aggregate, auc, scores))

    for rate in world.scale.rates:
        attempt({"learning_rate": rate})
    best_rate = max(tried, key=lambda attempted: attempted[2])[0]["learning_rate"]
    if METHODS[method].get("family", "implicit") == "implicit":
        for beta in world.scale.betas:
            attempt({"learning_rate": best_rate, "beta": beta})
    else:
        for rate in world.scale.more_rates:
            attempt({"learning_rate": rate})
    settings, aggregate, auc, scores = max(tried, key=lambda attempted: attempted[2])
    return Chosen(
        settings=settings,
        aggregate=aggregate,
        auc=auc,
        temperature=best_temperature(dev, scores, aggregate),
        tried=tuple((attempted[0], attempted[2]) for attempted in tried),
    )


def best_temperature(dev: Path, scores: Path, aggregate: str) -> float:
    """The temperature whose vote over all development responses is right most often; the first of equals."""
    bed = TestBed(Responses(dev, dev), ())
    samples, values = bed.samples, bed.scored(scores).scores[aggregate]
    spread = float(values[samples.valid].std()) or 1.0
    n = int(samples.num_responses.min())
    subsets = VoteSubsets(samples.answers, samples.correct, samples.num_responses, n)
    tried = [spread * temperature for temperature in TEMPERATURES]
    reached = [subsets.vote(sigmoid(values / temperature))[0].expected.mean() for temperature in tried]
    return tried[int(np.argmax(reached))]

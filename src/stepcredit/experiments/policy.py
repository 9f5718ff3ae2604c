"""Each reward model sampled as a policy: is the best reward model the best policy?

Purpose: an implicit PRM is a language model, so it can answer problems itself. How well it does, beside the
model that it started from and beside its worth as a reward model.

Differs from the paper: the lab's problems stand for MATH-500; greedy answers and sampled ones are both
reported; the worth as a reward model is best-of-n on the base's responses, mean over n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stepcredit.data import read_rollouts
from stepcredit.experiments.main import OBJECTIVES
from stepcredit.reports.finding import Cell, Check, Estimate, Finding, Plot, Series, Table
from stepcredit.reproduction.experiment import Experiment
from stepcredit.reproduction.measuring import TestBed, choose_aggregate
from stepcredit.reproduction.scale import Scale
from stepcredit.reproduction.seeds import Measurement, Seeds, all_of, is_above, is_below, told
from stepcredit.reproduction.world import Responses, World
from stepcredit.stats import spearman

BASE = "base"
GREEDY, SAMPLED, REWARD = "greedy", "sampled", "reward"
NUM_SAMPLED = 8
MARGIN = 0.02

PAPER: Mapping[str, tuple[str, str | None]] = {
    BASE: ("45.2", None),
    "implicit-dpo": ("25.8", "50.4"),
    "implicit-kto": ("46.6", "45.7"),
    "implicit-nca": ("35.6", "49.4"),
    "implicit-ce": ("28.6", "48.4"),
}
"""Accuracy as a policy on MATH-500 and average as a reward model (Table 1), in per cent."""


@dataclass(frozen=True, slots=True)
class Files:
    """What each model answers, and how it scores.

    Attributes:
        greedy: Model, or ``base``, to its graded likeliest responses to the test problems.
        sampled: Model, or ``base``, to its graded sampled ones.
        dev: Development responses of the base.
        dev_scores: Model to its scores of them.
        test: Test responses of the base.
        test_scores: Model to its scores of them.
    """

    greedy: Mapping[str, Path]
    sampled: Mapping[str, Path]
    dev: Path
    dev_scores: Mapping[str, Path]
    test: Responses
    test_scores: Mapping[str, Path]


def prepare(world: World) -> Files:
    """The models of the main table as policies; their scores are those of the main table."""
    models = {name: world.train(name) for name in OBJECTIVES}
    likeliest = replace(world.scale.sampling, temperature=0.0, top_p=1.0)
    dev, test = world.dev_set(), world.test_set()
    writers: dict[str, Path | None] = {BASE: None, **models}
    return Files(
        greedy={
            name: world.responses("test", model=model, sampling=likeliest, num_samples=1)
            for name, model in writers.items()
        },
        sampled={
            BASE: test.graded,
            **{
                name: world.responses("test", model=model, num_samples=NUM_SAMPLED)
                for name, model in models.items()
            },
        },
        dev=dev,
        dev_scores={name: world.score(dev, prm) for name, prm in models.items()},
        test=test,
        test_scores={name: world.score(test.distinct, prm) for name, prm in models.items()},
    )


def measure(world: World, files: Files) -> Measurement:
    """Accuracy of single responses, and of best-of-n by the same models."""
    bed = TestBed(files.test, world.scale.n)
    numbers: dict[str, float] = {}
    for name in (BASE, *OBJECTIVES):
        numbers[f"{name}/{GREEDY}"] = share_right(files.greedy[name])
        numbers[f"{name}/{SAMPLED}"] = share_right(files.sampled[name])
    for name in OBJECTIVES:
        aggregate = choose_aggregate(files.dev, files.dev_scores[name])
        accuracy = bed.accuracy(files.test_scores[name], aggregate)
        numbers[f"{name}/{REWARD}"] = sum(accuracy.values()) / len(accuracy)
    return numbers


def share_right(graded: Path) -> float:
    """Share of right responses; every problem has equally many."""
    return float(np.mean([bool(each.correct) for each in read_rollouts(graded)]))


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Policies beside reward models, and their ranks."""
    ranks = {how: _ranks(seeds, how) for how in (GREEDY, SAMPLED, REWARD)}

    def row(name: str) -> tuple[Cell, ...]:
        as_policy, as_reward = PAPER[name]
        policies: list[Cell] = []
        for how in (GREEDY, SAMPLED):
            policies += [seeds.of(f"{name}/{how}"), ranks[how].get(name)]
        if name == BASE:
            return (*policies, None, None, as_policy, as_reward)
        return (*policies, seeds.of(f"{name}/{REWARD}"), ranks[REWARD][name], as_policy, as_reward)

    table = Table(
        title="As a policy and as a reward model",
        columns=(
            "greedy",
            "rank, greedy",
            "sampled",
            "rank, sampled",
            "as reward model",
            "rank, as reward model",
            "paper, as policy",
            "paper, as reward model",
        ),
        rows=tuple((name, row(name)) for name in (BASE, *OBJECTIVES)),
        caption=(
            f"Per cent of right single responses (greedy: the likeliest; sampled: {NUM_SAMPLED} a problem, "
            "drawn as test responses are), and accuracy of best-of-n on the base's responses, mean over "
            f"n = {', '.join(map(str, scale.n))}. Ranks are among the objectives."
        ),
    )
    return Finding(
        name="policy",
        title="Is the best reward model the best policy?",
        purpose="Each implicit PRM answers the test problems itself.",
        differs=(
            "The lab's world; greedy and sampled answers; as a reward model each is judged on the base's "
            "responses only."
        ),
        tables=(table,),
        checks=tuple(_checks(seeds)),
        plots=(_plot(seeds),),
    )


def _ranks(seeds: Seeds, how: str) -> dict[str, str]:
    order = sorted(OBJECTIVES, key=lambda name: -seeds.of(f"{name}/{how}").mean)
    return {name: str(place) for place, name in enumerate(order, start=1)}


def rank_correlation(each: Measurement) -> float:
    """Spearman's, over objectives, of reward models with greedy policies; 0 where either has no order."""
    rewards = np.array([each[f"{name}/{REWARD}"] for name in OBJECTIVES])
    policies = np.array([each[f"{name}/{GREEDY}"] for name in OBJECTIVES])
    found = spearman(rewards, policies)
    return found if np.isfinite(found) else 0.0


def _checks(seeds: Seeds) -> list[Check]:
    best = max(OBJECTIVES, key=lambda name: seeds.of(f"{name}/{REWARD}").mean)
    rivals = [name for name in OBJECTIVES if name != best]
    rival = max(rivals, key=lambda name: seeds.of(f"{name}/{GREEDY}").mean)
    lead = seeds.difference(f"{rival}/{GREEDY}", f"{best}/{GREEDY}")
    over_base = {name: seeds.difference(f"{name}/{GREEDY}", f"{BASE}/{GREEDY}") for name in OBJECTIVES}
    losing = [name for name in OBJECTIVES if name != "implicit-kto"]
    return [
        Check(
            claim="The best reward model is not the best policy.",
            paper="DPO is the best reward model (50.4) and the worst policy (25.8), KTO the reverse",
            here=f"{best} is the best reward model; as a policy, {rival} less {best} is "
            f"{told(lead, sign=True)}. Rank correlation over the objectives "
            f"{told(seeds.derived(rank_correlation), percent=False, digits=2, sign=True)} "
            "(the paper's numbers: -0.80)",
            verdict=is_above(lead),
        ),
        Check(
            claim="Trained as a reward model by DPO, NCA or CE, a model becomes a worse policy.",
            paper="base 45.2; DPO 25.8, NCA 35.6, CE 28.6",
            here=_changes(over_base, losing),
            verdict=all_of([is_below(over_base[name]) for name in losing]),
        ),
        Check(
            claim=f"By KTO it stays as good a policy (loses less than {MARGIN:.0%}).",
            paper="46.6 against 45.2",
            here=_changes(over_base, ["implicit-kto"]),
            verdict=is_above(over_base["implicit-kto"], -MARGIN),
        ),
    ]


def _changes(over_base: Mapping[str, Estimate], names: list[str]) -> str:
    changes = ", ".join(f"{name} {told(over_base[name], sign=True)}" for name in names)
    return f"greedy, less the base: {changes}"


def _plot(seeds: Seeds) -> Plot:
    return Plot(
        name="policy",
        title="The same models as reward models and as policies",
        kind="points",
        x_label="Accuracy of best-of-n on the base's responses, mean over n",
        y_label="Accuracy of its own greedy responses",
        series=tuple(
            Series(
                name=name,
                x=(seeds.of(f"{name}/{REWARD}").mean,),
                y=(seeds.of(f"{name}/{GREEDY}"),),
            )
            for name in OBJECTIVES
        ),
    )


EXPERIMENT = Experiment(
    name="policy",
    title="each reward model sampled as a policy",
    prepare=prepare,
    measure=measure,
    conclude=conclude,
)

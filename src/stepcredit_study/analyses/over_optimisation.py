"""Choices among responses at temperature 1, with remedies for what goes wrong there.

Names of the numbers: ``test/MODEL/AGGREGATE/REMEDY/N`` is the accuracy of best-of-N at temperature 1 with
nothing cut off, ``usual/...`` that of responses drawn as usual, ``strength/...`` the remedy's strength; and,
on the lab, ``steps/MODEL/REMEDY/...`` how well step rewards separate first wrong steps from right ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stepcredit.stats import auc
from stepcredit_study.analyses.remedies import AS_TRAINED, RARE, REMEDIES, Scoring, TokenBed
from stepcredit_study.analyses.tokens import read_token_rewards
from stepcredit_study.frame.measuring import TestBed, beta_of
from stepcredit_study.frame.world import Responses, World

OPTIMISED = ("implicit-ce", "implicit-dpo")
"""Models whose choices are looked at; the remedies that train anew are on the first."""

LOWER_OF_TWO, PREFIXES, OFF_SUPPORT = "lower of two models", "prefix supervision", "off-support negatives"
TRAINED_REMEDIES = (LOWER_OF_TWO, PREFIXES, OFF_SUPPORT)
AGGREGATES = ("min", "sum")
"""What stands for a response: the lowest step, as in the paper, and the outcome reward."""

_REFERENCE = "reference"
_HOT, _HOT_SAMPLES = 1.5, 2
"""Temperature of off-support negatives, and how many responses are drawn for one wrong one."""

_OTHER_SEED = 1000


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from, and token rewards.

    Attributes:
        responses: ``dev`` and ``test`` at temperature 1, and ``usual``: test responses as usual.
        models: Model to its directory, which says its beta.
        tokens: The same names to token rewards of each model; under ``reference`` its log-probabilities.
    """

    responses: Mapping[str, Responses]
    models: Mapping[str, Path]
    tokens: Mapping[str, Mapping[str, Path]]
    negatives: Path


def prepare(world: World, usual: Responses) -> Choices:
    """Ask for responses at temperature 1, and for models that are trained against their misuse."""
    first = OPTIMISED[0]
    negatives = _negatives(world)
    kept = world.select(world.train_set(), responses=world.scale.sizes.train_responses - 1)
    models = {name: world.train(name) for name in OPTIMISED} | {
        LOWER_OF_TWO: world.train(first, seed=world.seed + _OTHER_SEED),
        PREFIXES: world.train(first, objective="ce-prefix"),
        OFF_SUPPORT: world.train(first, world.select(kept, negatives)),
    }
    sampling = replace(world.scale.sampling, temperature=1.0, top_p=1.0)
    dev = world.responses("dev", sampling=sampling, num_samples=world.scale.sizes.test_responses)
    responses = {
        "dev": Responses(dev, world.select(dev, distinct=True)),
        "test": world.test_set(sampling=sampling),
        "usual": usual,
    }

    def tokens(data: Path) -> dict[str, Path]:
        scores = {name: world.score(data, prm, tokens=True) for name, prm in models.items()}
        return scores | {_REFERENCE: world.reference_log_probability(data, tokens=True)}

    return Choices(
        responses=responses,
        models=models,
        tokens={name: tokens(part.distinct) for name, part in responses.items()},
        negatives=world.reference_log_probability(negatives, tokens=True),
    )


def _negatives(world: World) -> Path:
    """One wrong response to each instruction, drawn so hot that it leaves the reference's support."""
    sampling = replace(world.scale.train_sampling, temperature=_HOT)
    hot = world.responses("train", sampling=sampling, num_samples=_HOT_SAMPLES)
    return world.select(hot, one_response="0:1")


def measure(world: World, choices: Choices) -> dict[str, float]:
    """Best-of-n with every remedy, whose strength is chosen on development responses, and the cause."""
    beds = {name: TestBed(responses, world.scale.n) for name, responses in choices.responses.items()}
    free = beds["test"]
    numbers: dict[str, float] = {
        "test/pass@1": free.pass_at(1),
        "test/oracle": free.pass_at(max(free.ns)),
        "test/distinct": float(free.samples.num_distinct.mean()),
    }
    negatives = read_token_rewards(choices.negatives)
    numbers["negatives/rare"] = float((negatives.lowest(negatives.rewards) < math.log(RARE)).mean())
    first = OPTIMISED[0]
    trials: list[tuple[str, str, tuple[str, ...]]] = [
        (name, remedy, (name,)) for name in OPTIMISED for remedy in REMEDIES
    ]
    trials.append((first, LOWER_OF_TWO, (first, LOWER_OF_TWO)))
    trials += [(first, remedy, (remedy,)) for remedy in (PREFIXES, OFF_SUPPORT)]
    token_beds = _token_beds(choices, beds)
    for name, remedy, models in trials:
        for aggregate in AGGREGATES:
            key = f"{name}/{aggregate}/{remedy}"
            scoring = token_beds["dev"].choose(models, REMEDIES.get(remedy, REMEDIES[AS_TRAINED]), aggregate)
            numbers[f"strength/{key}"] = scoring.strength
            for where in ("test", "usual"):
                accuracy = token_beds[where].accuracy(scoring)
                numbers |= {f"{where}/{key}/{n}": value for n, value in accuracy.items()}
            if remedy == AS_TRAINED:
                numbers |= _cause(f"cause/{name}/{aggregate}", token_beds["test"], scoring)
            if world.scale.is_lab and aggregate == "min":
                numbers |= _first_errors(f"steps/{name}/{remedy}", token_beds["test"], scoring)
    return numbers


def _token_beds(choices: Choices, beds: Mapping[str, TestBed]) -> dict[str, TokenBed]:
    betas = {name: beta_of(model) for name, model in choices.models.items()}
    token_beds = {}
    for where, bed in beds.items():
        models = {name: path for name, path in choices.tokens[where].items() if name != _REFERENCE}
        token_beds[where] = TokenBed(bed, models, betas, choices.tokens[where][_REFERENCE])
    return token_beds


def _cause(key: str, free: TokenBed, scoring: Scoring) -> dict[str, float]:
    """Share of responses with a token outside the support, of problems where a wrong one is picked of all.

    Of those problems' picks, and of all of their wrong responses.
    """
    samples, rare = free.bed.samples, free.holds_rare()
    picked = np.where(samples.valid, free.scores(scoring), -np.inf).argmax(axis=1)
    rows = np.arange(len(picked))
    wrong = ~samples.correct[rows, picked]
    rare_and_wrong = rare[rows, picked][wrong]
    rivals = (~samples.correct & samples.valid)[wrong]
    picks = np.zeros_like(rare)
    picks[rows[wrong], picked[wrong]] = True
    ratios = free.rare_ratios(scoring.models[0], picks)
    return {
        f"{key}/ratio of rare tokens": float(np.median(ratios)) if ratios.size else 0.0,
        f"{key}/wrong picks": float(wrong.mean()),
        f"{key}/rare among wrong picks": float(rare_and_wrong.mean()) if wrong.any() else 0.0,
        f"{key}/rare among wrong": float(rare[wrong][rivals].mean()) if wrong.any() else 0.0,
    }


def _first_errors(key: str, free: TokenBed, scoring: Scoring) -> dict[str, float]:
    """AUC of first wrong steps against right ones before any error, by whether a token is off the support."""
    from stepcredit.lab.oracles import label_steps

    tokens, rewards = free.reference, free.step_rewards(scoring)
    rollouts = {rollout.id: rollout for rollout in free.bed.distinct}
    right, wrong = np.zeros(len(rewards), dtype=bool), np.zeros(len(rewards), dtype=bool)
    for identifier, start, stop in zip(
        tokens.ids, tokens.step_offsets[:-1], tokens.step_offsets[1:], strict=True
    ):
        labels = [label.label for label in label_steps(rollouts[identifier])]
        first = start + labels.index(0.0) if 0.0 in labels else stop
        right[start:first] = True
        wrong[first : min(first + 1, stop)] = True
    rare = tokens.lowest_of_steps(tokens.rewards) < math.log(RARE)
    aucs = {}
    for name, part in (("on support", wrong & ~rare), ("off support", wrong & rare)):
        value = auc(-rewards[right | part], part[right | part])
        if np.isfinite(value):
            aucs[f"{key}/{name}"] = value
    return aucs

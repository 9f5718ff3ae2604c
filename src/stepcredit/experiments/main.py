"""Table 1: best-of-n with every reward model, on responses of three generators.

Purpose: does a language model that saw nothing but right and wrong final answers pick better than voting,
and than reward models whose step labels cost many times as much?

Differs from the paper: the lab's policies and problems stand for MATH and 7B to 70B models, accuracies are
expectations over all subsets of n of the responses instead of the first n, and each method's score of a
response (lowest step, mean, sum, last) is chosen on development problems instead of fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stepcredit.reports.finding import Check, Estimate, Finding, Plot, Series, Table
from stepcredit.reproduction.experiment import Experiment
from stepcredit.reproduction.measuring import TestBed, development_accuracies, share_right
from stepcredit.reproduction.scale import Scale
from stepcredit.reproduction.seeds import Measurement, Seeds, all_of, is_above, told
from stepcredit.reproduction.world import Responses, World

OBJECTIVES = ("implicit-dpo", "implicit-kto", "implicit-nca", "implicit-ce")
BALANCED = {"implicit-ce-dataset-balanced": "dataset", "implicit-ce-instruction-balanced": "instruction"}
BASELINES = ("math-shepherd", "math-shepherd-tokens", "autopsv", "outcome-head")
UNTRAINED = ("log-probability", "self-consistency", "shortest", "random")
METHODS = (*OBJECTIVES, *BALANCED, *BASELINES, *UNTRAINED)

PAPER_AVERAGES: Mapping[str, str] = {
    "implicit-dpo": "50.4",
    "implicit-kto": "45.7",
    "implicit-nca": "49.4",
    "implicit-ce": "48.4",
    "implicit-ce-dataset-balanced": "47.8",
    "implicit-ce-instruction-balanced": "49.0",
    "math-shepherd": "47.8",
    "autopsv": "45.7",
    "log-probability": "45.8",
    "majority": "49.1",
}
"""Table 1's averages over generators and n, in per cent; plain voting and log-probability from its text."""


@dataclass(frozen=True, slots=True)
class Files:
    """Scores of every method.

    Attributes:
        train: Training responses.
        dev: Development responses.
        dev_scores: Method to its scores of them.
        test: Generator to its responses.
        test_scores: Generator, then method, to its scores.
    """

    train: Path
    dev: Path
    dev_scores: Mapping[str, Path]
    test: Mapping[str, Responses]
    test_scores: Mapping[str, Mapping[str, Path]]


def trained(world: World) -> dict[str, Path]:
    """Method to its model."""
    models = {name: world.train(name) for name in (*OBJECTIVES, "outcome-head")}
    models |= {name: world.train("implicit-ce", balance=how) for name, how in BALANCED.items()}
    labels = world.math_shepherd()
    models |= {name: world.train(name, labels) for name in ("math-shepherd", "math-shepherd-tokens")}
    return models | {"autopsv": world.train("autopsv", world.autopsv())}


def prepare(world: World) -> Files:
    """All models, and their scores of development and test responses."""
    models = trained(world)
    dev = world.dev_set()
    test = {policy: world.test_set(policy) for policy in world.scale.generators}

    def scores(data: Path) -> dict[str, Path]:
        found = {name: world.score(data, prm) for name, prm in models.items()}
        found["log-probability"] = world.reference_log_probability(data)
        return found | {name: world.baseline(data, name) for name in UNTRAINED if name != "log-probability"}

    return Files(
        train=world.train_set(),
        dev=dev,
        dev_scores=scores(dev),
        test=test,
        test_scores={policy: scores(responses.distinct) for policy, responses in test.items()},
    )


def measure(world: World, files: Files) -> Measurement:
    """Accuracy of every method on each generator's responses at each n."""
    numbers = {"train/right": share_right(files.train)}
    chosen: dict[str, str] = {}
    for name in METHODS:
        accuracy_of = development_accuracies(files.dev, files.dev_scores[name])
        chosen[name] = max(accuracy_of, key=lambda aggregate: accuracy_of[aggregate])
        numbers[f"development/{name}"] = accuracy_of[chosen[name]]
    for policy, responses in files.test.items():
        bed = TestBed(responses, world.scale.n)
        numbers[f"{policy}/pass@1"] = bed.pass_at(1)
        accuracies = {"majority": bed.majority()}
        accuracies["oracle"] = {n: bed.pass_at(n) for n in bed.ns}
        for name in METHODS:
            accuracies[name] = bed.accuracy(files.test_scores[policy][name], chosen[name])
        for name, accuracy in accuracies.items():
            numbers |= {f"{policy}/{name}/{n}": value for n, value in accuracy.items()}
    for name in ("majority", "oracle", *METHODS):
        cells = [numbers[f"{policy}/{name}/{n}"] for policy in files.test for n in world.scale.n]
        numbers[f"average/{name}"] = sum(cells) / len(cells)
    return numbers


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """The table, and whether the paper's orderings hold."""
    rows = ("majority", *METHODS, "oracle")
    columns = [(policy, n) for policy in scale.generators for n in scale.n]
    table = Table(
        title="Accuracy of best-of-n by reward model",
        columns=(*(f"{policy} @{n}" for policy, n in columns), "average", "paper's average"),
        rows=tuple(
            (
                name,
                (
                    *(seeds.of(f"{policy}/{name}/{n}") for policy, n in columns),
                    seeds.of(f"average/{name}"),
                    PAPER_AVERAGES.get(name),
                ),
            )
            for name in rows
        ),
        caption="Per cent. One response is right in "
        + ", ".join(f"{told(seeds.of(f'{policy}/pass@1'))} ({policy})" for policy in scale.generators)
        + ".",
    )
    return Finding(
        name="main",
        title="Which reward model picks best?",
        purpose="Best-of-n with every reward model on responses of three generators (Table 1).",
        differs=(
            "The lab's world and policies; expectations over all subsets of n; the score that stands for "
            "a response is chosen on development problems for each method."
        ),
        tables=(table,),
        checks=tuple(_checks(seeds)),
        plots=(_plot(seeds),),
    )


def _checks(seeds: Seeds) -> list[Check]:
    def gain(method: str, over: str) -> Estimate:
        return seeds.difference(f"average/{method}", f"average/{over}")

    def best_over(name: str) -> Estimate:
        """Of the objective that did best on the seed's development problems."""
        return seeds.derived(lambda each: each[f"average/{best_objective(each)}"] - each[f"average/{name}"])

    against = ("math-shepherd", "math-shepherd-tokens", "autopsv")
    gains = {over: best_over(over) for over in against}
    vote, likelihood = (
        seeds.derived(partial(_over_single, method=name)) for name in ("majority", "log-probability")
    )
    over_votes = {name: gain(name, "majority") for name in OBJECTIVES}
    return [
        Check(
            claim="An implicit PRM beats step models trained on Monte-Carlo and AutoPSV labels.",
            paper="DPO 50.4, Math-Shepherd 47.8, AutoPSV 45.7",
            here="the objective that is best on development problems less "
            + ", ".join(f"{over} {told(each, sign=True)}" for over, each in gains.items()),
            verdict=all_of([is_above(each) for each in gains.values()]),
            why="Trained on true step labels the same heads find wrong steps as well as an implicit PRM does "
            "(docs/baselines.md): here they lack labels, of which every response gives an implicit PRM's "
            "tokens one and the log-ratio starts from what the reference knows.",
        ),
        Check(
            claim="Every objective makes a PRM that picks better than plain voting.",
            paper="DPO 50.4, NCA 49.4 above about 49.1; CE 48.4, KTO 45.7 below it",
            here=", ".join(f"{name} {told(each, sign=True)}" for name, each in over_votes.items()),
            verdict=all_of([is_above(each) for each in over_votes.values()]),
            why="Wrong answers here are misconceptions, which repeat, so a vote adds little: "
            f"{told(vote, sign=True)} to a single response.",
        ),
        Check(
            claim="KTO makes the weakest implicit PRM.",
            paper="KTO 45.7, the others 48.4 to 50.4",
            here=", ".join(f"{name} {told(seeds.of(f'average/{name}'))}" for name in OBJECTIVES),
            verdict=all_of(
                [is_above(gain(name, "implicit-kto")) for name in OBJECTIVES if "kto" not in name]
            ),
            why="Each objective has settings of its own here, chosen among equally many.",
        ),
        Check(
            claim="Balancing right and wrong responses within each instruction helps CE a little.",
            paper="49.0 against 48.4 (dataset-balanced 47.8)",
            here=told(gain("implicit-ce-instruction-balanced", "implicit-ce"), sign=True),
            verdict=is_above(gain("implicit-ce-instruction-balanced", "implicit-ce")),
            why=f"{told(seeds.of('train/right'))}% of the training responses are right, so there is little "
            "to balance, and balancing leaves out responses.",
        ),
        Check(
            claim="The untrained model's own log-probability is no substitute.",
            paper="45.8, the weakest but KTO and AutoPSV",
            here="the objective that is best on development problems less log-probability "
            + told(best_over("log-probability"), sign=True),
            verdict=is_above(best_over("log-probability")),
            why="The model is as sure of a misconception as of a fact: its log-probability adds "
            f"{told(likelihood, sign=True)} to a single response.",
        ),
    ]


def _over_single(each: Measurement, method: str) -> float:
    """What a method adds to a single response, mean over generators and n."""
    singles = [value for name, value in each.items() if name.endswith("/pass@1")]
    return each[f"average/{method}"] - sum(singles) / max(1, len(singles))


def best_objective(each: Measurement) -> str:
    """The objective whose model picks best on development problems."""
    return max(OBJECTIVES, key=lambda name: each[f"development/{name}"])


def _plot(seeds: Seeds) -> Plot:
    names = ("majority", *METHODS)
    return Plot(
        name="main",
        title="Accuracy by reward model, mean over generators and n",
        kind="intervals",
        x_label="Accuracy",
        series=tuple(Series(name=name, y=(seeds.of(f"average/{name}"),)) for name in names),
        reference=seeds.of("average/majority").mean,
    )


EXPERIMENT = Experiment(
    name="main",
    title="best-of-n with every reward model (Table 1)",
    prepare=prepare,
    measure=measure,
    conclude=conclude,
)

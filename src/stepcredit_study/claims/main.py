"""Table 1: best-of-n with every reward model, on responses of three generators.

Purpose: does a language model that saw nothing but right and wrong final answers pick better than voting,
and than reward models whose step labels cost many times as much?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from stepcredit.runs import read_manifest
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import AGGREGATES, TestBed, development_accuracies, share_right
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.variants import Scorer, Variants, score_variants
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Check,
    Estimate,
    Finding,
    Table,
    Verdict,
    format_estimate,
    format_estimates,
    intervals_plot,
)

OBJECTIVES = ("implicit-dpo", "implicit-kto", "implicit-nca", "implicit-ce")
BALANCED = {"implicit-ce-dataset-balanced": "dataset", "implicit-ce-instruction-balanced": "instruction"}
BASELINES = ("math-shepherd", "math-shepherd-tokens", "autopsv", "outcome-head")
STEP_MODELS = ("math-shepherd", "math-shepherd-tokens", "autopsv")
UNTRAINED = ("log-probability", "self-consistency", "shortest", "random")
METHODS = (*OBJECTIVES, *BALANCED, *BASELINES, *UNTRAINED)

OVER_STEP_MODELS = "An implicit PRM beats step models trained on Monte-Carlo and AutoPSV labels."
STEP_MODELS_BELOW_VOTE = "Step models trained on Monte-Carlo and AutoPSV labels pick worse than plain voting."
KTO_WEAKEST = "KTO makes the weakest implicit PRM."
"""Claims that other experiments repeat in a setting of their own."""

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

PAPER_GENERATORS = ("Mistral-7B", "Llama-3.1-8B", "Llama-3.1-70B")
PAPER_TABLE: Mapping[str, str] = {
    "EurusRM-7B": "17.2 21.0 20.4 / 49.6 51.6 51.8 / 69.0 69.6 72.2 / 46.9",
    "SkyworkRM-Llama3.1-8B": "16.0 19.6 23.4 / 49.0 50.4 48.2 / 70.4 72.6 72.0 / 46.8",
    "ArmoRM-Llama3-8B": "16.6 21.0 23.2 / 47.8 48.6 49.4 / 70.6 70.8 71.0 / 46.6",
    "Math-Shepherd-7B (released)": "16.0 21.0 20.4 / 50.0 52.4 52.8 / 66.4 65.8 65.6 / 45.6",
    "RLHFlow-8B-Mistral-Data": "19.4 25.2 30.2 / 51.8 52.0 50.6 / 70.8 71.0 71.2 / 49.1",
    "RLHFlow-8B-DS-Data": "17.2 23.0 25.2 / 54.4 54.2 55.8 / 68.6 70.4 73.0 / 49.1",
    "Math-Shepherd (same data)": "17.6 24.4 26.8 / 50.0 51.4 52.8 / 68.6 69.4 68.8 / 47.8",
    "AutoPSV (same data)": "16.6 20.6 22.2 / 52.2 51.4 52.2 / 68.4 65.4 62.4 / 45.7",
    "implicit PRM, DPO": "18.6 24.4 28.8 / 54.0 55.4 57.0 / 71.8 71.2 72.2 / 50.4",
    "implicit PRM, KTO": "15.6 18.4 18.6 / 49.6 51.8 50.8 / 72.6 67.0 67.2 / 45.7",
    "implicit PRM, NCA": "18.6 23.8 28.0 / 52.4 53.4 55.2 / 69.0 73.0 71.6 / 49.4",
    "implicit PRM, CE": "18.8 24.0 28.0 / 52.6 54.4 53.0 / 70.6 67.0 67.2 / 48.4",
    "CE, dataset-balanced": "18.0 23.6 27.0 / 52.6 54.2 52.6 / 68.6 66.8 67.0 / 47.8",
    "CE, instruction-balanced": "17.6 22.6 26.2 / 52.6 55.2 54.6 / 69.4 71.2 72.0 / 49.0",
}
"""Table 1: best-of-4, 16 and 64 of each generator, and the average."""


def trained(world: World) -> dict[str, Path]:
    """Method to its model."""
    models = {name: world.train(name) for name in (*OBJECTIVES, "outcome-head")}
    models |= {name: world.train("implicit-ce", balance=how) for name, how in BALANCED.items()}
    labels = world.math_shepherd()
    models |= {name: world.train(name, labels) for name in ("math-shepherd", "math-shepherd-tokens")}
    return models | {"autopsv": world.train("autopsv", world.autopsv())}


def prepare(world: World) -> Variants:
    """All models, and their scores of development and test responses."""
    scorers: dict[str, Path | Scorer] = {**trained(world), "log-probability": world.reference_log_probability}
    scorers |= {name: partial(world.baseline, by=name) for name in UNTRAINED if name != "log-probability"}
    return score_variants(world, scorers, world.scale.generators, data={"train": world.train_set()})


def measure(world: World, variants: Variants) -> Measurement:
    """Accuracy of every method on each generator's responses at each n."""
    numbers = {"train/right": share_right(variants.data["train"])}
    numbers |= kto_baseline(variants.models["implicit-kto"])
    chosen: dict[str, str] = {}
    for name in METHODS:
        accuracy_of = development_accuracies(variants.dev, variants.dev_scores[name])
        chosen[name] = max(accuracy_of, key=lambda aggregate: accuracy_of[aggregate])
        numbers[f"development/{name}"] = accuracy_of[chosen[name]]
        numbers |= {
            f"chosen/{name}/{aggregate}": float(aggregate == chosen[name]) for aggregate in AGGREGATES
        }
    for policy, responses in variants.test.items():
        bed = TestBed(responses, world.scale.n)
        numbers[f"{policy}/pass@1"] = bed.pass_at(1)
        accuracies = {"majority": bed.majority()}
        accuracies["oracle"] = {n: bed.pass_at(n) for n in bed.ns}
        for name in METHODS:
            accuracies[name] = bed.accuracy(variants.test_scores[name][policy], chosen[name])
        for name, accuracy in accuracies.items():
            numbers |= {f"{policy}/{name}/{n}": value for n, value in accuracy.items()}
    for name in ("majority", "oracle", *METHODS):
        cells = [numbers[f"{policy}/{name}/{n}"] for policy in variants.test for n in world.scale.n]
        numbers[f"average/{name}"] = sum(cells) / len(cells)
    return numbers


def kto_baseline(model: Path) -> dict[str, float]:
    """KTO's z: its mean over the steps of training, and in which share of them it was 0.

    Where it is always 0, rewards are compared with 0 throughout, which is not the published objective.
    """
    baseline = (read_manifest(model) or {})["baseline"]
    return {"kto/z": baseline["mean"], "kto/z is 0": baseline["zero_steps"] / baseline["steps"]}


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
        + ", ".join(
            f"{format_estimate(seeds.of(f'{policy}/pass@1'))} ({policy})" for policy in scale.generators
        )
        + ".",
    )
    return Finding(
        name="main",
        title="Which reward model picks best?",
        purpose="Best-of-n with every reward model on responses of three generators (Table 1).",
        differs=(
            f"{scale.setting}; expectations over all subsets of n; the score of a response is chosen "
            "on development problems for each method."
        ),
        tables=(table, _published(), _choices(seeds)),
        checks=(
            _over_step_models(seeds),
            *_vote_checks(seeds),
            *_objective_checks(seeds),
            _over_likelihood(seeds),
        ),
        plots=(
            intervals_plot(
                "main",
                "Accuracy by reward model, mean over generators and n",
                "Accuracy",
                {name: seeds.of(f"average/{name}") for name in ("majority", *METHODS)},
                reference=seeds.of("average/majority").mean,
            ),
        ),
    )


def _choices(seeds: Seeds) -> Table:
    """What stands for a response, which is chosen on development problems in each seed."""

    def counted(name: str) -> str:
        counts = {aggregate: sum(seeds.of(f"chosen/{name}/{aggregate}").values) for aggregate in AGGREGATES}
        return ", ".join(f"{aggregate} {count:.0f}" for aggregate, count in counts.items() if count)

    return Table(
        title="The score of a response",
        columns=("chosen: number of seeds", "development problems"),
        rows=tuple((name, (counted(name), seeds.of(f"development/{name}"))) for name in METHODS),
        caption="Chosen from the lowest step (min), mean, sum and last step; accuracy of best-of-4 on "
        "development problems, in per cent.",
    )


def _published() -> Table:
    """Table 1 as it is printed, to be read beside ours."""
    columns = [f"{generator} @{n}" for generator in PAPER_GENERATORS for n in (4, 16, 64)]
    return Table(
        title="The paper's Table 1",
        columns=(*columns, "average"),
        rows=tuple((name, tuple(cells.replace("/", " ").split())) for name, cells in PAPER_TABLE.items()),
        caption="Per cent on MATH-500; the first six reward models are released ones, the others were "
        "trained on the paper's data.",
    )


def _less(seeds: Seeds, methods: Iterable[str], over: str) -> dict[str, Estimate]:
    """Each method's average minus that of another."""
    return {name: seeds.difference(f"average/{name}", f"average/{over}") for name in methods}


def _best_over(seeds: Seeds, method: str) -> Estimate:
    """The objective that did best on the seed's development problems, minus a method."""
    return seeds.derived(
        lambda numbers: numbers[f"average/{best_objective(numbers)}"] - numbers[f"average/{method}"]
    )


def _added(seeds: Seeds, what: str, method: str) -> str:
    added = seeds.derived(partial(_over_single, method=method))
    return f"{what} adds {format_estimate(added, sign=True)} to a single response."


def _little_to_beat(seeds: Seeds) -> str:
    helps = is_above(seeds.derived(partial(_over_single, method="majority"))) == "holds"
    return "" if helps else " To beat a vote that adds nothing certain says little about voting."


def _over_step_models(seeds: Seeds) -> Check:
    gains = {name: _best_over(seeds, name) for name in STEP_MODELS}
    of_ce = {name: seeds.difference("average/implicit-ce", f"average/{name}") for name in STEP_MODELS}
    heads_add = {name: seeds.derived(partial(_over_single, method=name)) for name in BASELINES}
    return Check(
        claim=OVER_STEP_MODELS,
        paper="DPO 50.4, Math-Shepherd 47.8, AutoPSV 45.7",
        here=f"the objective that is best on development problems minus {format_estimates(gains)}; "
        f"CE minus {format_estimates(of_ce)}",
        verdict=all_of([is_above(estimate) for estimate in gains.values()]),
        why="The objective is chosen among four on development problems; each had as many settings "
        "as each step model. CE alone is reported too. To a single response new heads add "
        f"{format_estimates(heads_add)}: where new heads learn so little, the difference may be theirs and "
        "not their labels'. `positive-control` repeats the claim where heads on true labels succeed.",
    )


def _vote_checks(seeds: Seeds) -> list[Check]:
    votes = _less(seeds, (*OBJECTIVES, *STEP_MODELS), "majority")

    def check(claim: str, paper: str, methods: tuple[str, ...], side: Callable[[Estimate], Verdict]) -> Check:
        return Check(
            claim=claim,
            paper=f"{paper}, the vote about 49.1",
            here=format_estimates({name: votes[name] for name in methods}),
            verdict=all_of([side(votes[name]) for name in methods]),
            why=f"{_added(seeds, 'The vote', 'majority')}{_little_to_beat(seeds)}",
        )

    return [
        check(
            "Implicit PRMs trained by DPO and NCA pick better than plain voting.",
            "DPO 50.4, NCA 49.4",
            ("implicit-dpo", "implicit-nca"),
            is_above,
        ),
        check(
            "Implicit PRMs trained by CE and KTO do not pick better than plain voting.",
            "CE 48.4, KTO 45.7",
            ("implicit-ce", "implicit-kto"),
            is_below,
        ),
        check(STEP_MODELS_BELOW_VOTE, "Math-Shepherd 47.8, AutoPSV 45.7", STEP_MODELS, is_below),
    ]


def _objective_checks(seeds: Seeds) -> list[Check]:
    development = {name: seeds.of(f"development/{name}") for name in OBJECTIVES}
    chosen = f"On development problems (best-of-4): {format_estimates(development, sign=False)}."
    lead = {
        name: seeds.difference("average/implicit-dpo", f"average/{name}")
        for name in OBJECTIVES
        if name != "implicit-dpo"
    }
    behind = _less(seeds, (name for name in OBJECTIVES if name != "implicit-kto"), "implicit-kto")
    balance = _less(seeds, BALANCED, "implicit-ce")
    return [
        Check(
            claim="DPO makes the best implicit PRM.",
            paper="DPO 50.4, NCA 49.4, CE 48.4, KTO 45.7",
            here=f"implicit-dpo minus {format_estimates(lead)}",
            verdict=all_of([is_above(estimate) for estimate in lead.values()]),
            why=chosen,
        ),
        Check(
            claim=KTO_WEAKEST,
            paper="KTO 45.7, the others 48.4 to 50.4",
            here=f"minus implicit-kto: {format_estimates(behind)}",
            verdict=all_of([is_above(estimate) for estimate in behind.values()]),
            why=f"{chosen} {_about_z(seeds)}",
        ),
        Check(
            claim="Balancing right and wrong responses within each instruction helps CE a little; "
            "balancing them over the whole set does not.",
            paper="instruction-balanced 49.0, dataset-balanced 47.8, plain 48.4",
            here=format_estimates(balance),
            verdict=all_of(
                [
                    is_above(balance["implicit-ce-instruction-balanced"]),
                    is_below(balance["implicit-ce-dataset-balanced"]),
                ]
            ),
            why=f"{format_estimate(seeds.of('train/right'))}% of the training responses are right.",
        ),
    ]


def _about_z(seeds: Seeds) -> str:
    zero = seeds.get("kto/z is 0")
    if zero is None:
        return (
            "Not recorded is how often KTO's z was 0. In two shorter runs with these settings it was 0 in 19 "
            "and 16 of 20 steps, so that rewards were compared with 0, which is not the published objective."
        )
    return f"KTO's z was 0 in {format_estimate(zero)}% of the steps."


def _over_likelihood(seeds: Seeds) -> Check:
    gain = _best_over(seeds, "log-probability")
    return Check(
        claim="The untrained model's log-probability cannot replace an implicit PRM.",
        paper="45.8, lower than all but KTO and AutoPSV",
        here="the objective that is best on development problems minus log-probability "
        + format_estimate(gain, sign=True),
        verdict=is_above(gain),
        why=_added(seeds, "The log-probability", "log-probability"),
    )


def _over_single(numbers: Measurement, method: str) -> float:
    """What a method adds to a single response, mean over generators and n."""
    singles = [value for name, value in numbers.items() if name.endswith("/pass@1")]
    return numbers[f"average/{method}"] - sum(singles) / max(1, len(singles))


def best_objective(numbers: Measurement) -> str:
    """The objective whose model picks best on development problems."""
    return max(OBJECTIVES, key=lambda name: numbers[f"development/{name}"])


EXPERIMENT = Experiment("main", prepare, measure, conclude)

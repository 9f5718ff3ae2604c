"""Inference cost: what scoring adds to the time of writing the responses.

Purpose: an implicit PRM reads every response with two models. How much does that add to generation, beside
an ordinary PRM, and do a cached reference, none, or one base with an adapter spare it?

Differs from the paper: the lab's generators are all of one size, so the share falls with a larger generator
only in the operations, which are also worked out for the paper's sizes. Timed are one response to each test
problem (equal responses, which are scored only once, do not occur), written and scored in one process with
the same threads; of several turns the fastest counts. Processor time is taken, which other work on the
machine does not lengthen. At the paper's scale device-seconds are taken: the wall-clock time of each command,
loading of models included, times the devices that it runs on, since generation spreads over several and
scoring runs on one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from stepcredit.data import read_prompts
from stepcredit.generators.options import GeneratorOptions, make_generator
from stepcredit.runs import read_manifest
from stepcredit.scorers import load_scorer
from stepcredit.types import GenerationRequest, Rollout
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale, read_scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Cell,
    Check,
    Estimate,
    Finding,
    Table,
    Verdict,
    format_estimate,
    format_estimates,
    intervals_plot,
)

ORDINARY, LIVE = "value head", "implicit, live reference"
CACHED, FREE = "implicit, cached reference", "implicit, reference-free"
ADAPTER = "implicit, one base with an adapter"
PASSES: Mapping[str, int] = {ORDINARY: 1, LIVE: 2, CACHED: 1, FREE: 1, ADAPTER: 2}
"""How often a model as large as the PRM reads each response."""

PAPER: Mapping[str, str] = {ORDINARY: "201 / 171 / 111", LIVE: "302 / 242 / 122"}
"""Total time relative to generation alone, for Mistral-7B, Llama-3.1-8B and Llama-3.1-70B, in per cent."""

TURNS = 5
LORA_RANK = 2
"""A higher rank would be a large part of the lab's small model, as it never is of a real one."""
NEAR = 1.5
"""Times an ordinary PRM's scoring that count as near it; a second model makes it twice as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The reward models; at the paper's scale also what the timed commands wrote.

    Attributes:
        scores: Generator, then way of scoring, to scores of its responses.
    """

    models: Mapping[str, Path]
    prompts: Path
    generated: Mapping[str, Path]
    scores: Mapping[str, Mapping[str, Path]]


def prepare(world: World) -> Files:
    """The usual models, and an adapter, of which only the speed counts: it is trained on little."""
    implicit = world.train("implicit-ce")
    adapter = world.train("implicit-ce", world.dev_set(), lora_rank=LORA_RANK)
    models = {ORDINARY: world.train("outcome-head"), LIVE: implicit, CACHED: implicit, FREE: implicit}
    models[ADAPTER] = adapter
    generated, scores = {}, {}
    if not world.scale.is_lab:
        for policy in world.scale.generators:
            generated[policy] = world.sampled("test", policy=policy)
            data = world.test_set(policy).graded
            scores[policy] = {way: world.score(data, models[way]) for way in (ORDINARY, LIVE, ADAPTER)}
            scores[policy][FREE] = world.score(data, implicit, reference_free=True)
    return Files(
        models=models,
        prompts=world.prompts("test", world.scale.sizes.test_prompts),
        generated=generated,
        scores=scores,
    )


def measure(world: World, files: Files) -> Measurement:
    """Total time and operations relative to generation alone."""
    numbers = _timed_here(world, files) if world.scale.is_lab else _timed_commands(world.scale, files)
    policies = tuple(world.scale.generators)
    for way in PASSES:
        if f"{policies[0]}/{way}/time" in numbers:
            total = sum(numbers[f"{policy}/{way}/time"] for policy in policies)
            numbers[f"{way}/time"] = total / len(policies)
    return numbers


def _timed_here(world: World, files: Files) -> dict[str, float]:
    """Write and score the same responses, turn by turn."""
    import torch

    from stepcredit.generators.transformers import TransformersGenerator

    sampling = world.scale.sampling.sampling(world.seed)
    requests = [
        GenerationRequest(prompt=prompt, indices=(0,), sampling=sampling)
        for prompt in read_prompts(files.prompts)
    ]
    numbers = {"threads": float(torch.get_num_threads())}
    with TemporaryDirectory() as cache:
        scorers = {way: load_scorer(files.models[way]) for way in (ORDINARY, LIVE, ADAPTER)}
        scorers[CACHED] = load_scorer(files.models[CACHED], cache=cache)
        scorers[FREE] = load_scorer(files.models[FREE], reference_free=True)
        for policy in world.scale.generators:
            options = GeneratorOptions(**world.scale.policy, model=str(world.model(policy)))
            generator = make_generator(options)
            assert isinstance(generator, TransformersGenerator)
            responses = [rollout for rollout in generator.generate(requests) if isinstance(rollout, Rollout)]
            work: dict[str, Callable[[], Iterable[object]]] = {
                way: partial(scorer.score_all, responses) for way, scorer in scorers.items()
            }
            seconds = fastest({"generation": partial(generator.generate, requests), **work})
            numbers[f"{policy}/generation/milliseconds"] = 1e3 * seconds["generation"] / len(responses)
            for way, scorer in scorers.items():
                numbers[f"{policy}/{way}/time"] = 1 + seconds[way] / seconds["generation"]
                # Both read and write the same tokens, so only the models' sizes differ.
                relative_size = scorer.ledger.model_parameters / generator.ledger.model_parameters
                numbers[f"{policy}/{way}/operations"] = 1 + PASSES[way] * relative_size
    return numbers


def fastest(work: Mapping[str, Callable[[], Iterable[object]]], turns: int = TURNS) -> dict[str, float]:
    """Least processor seconds of each piece of work, of turns in which all come; one more warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(turns + 1):
        for name, start in work.items():
            before = time.process_time()
            for _each in start():
                pass
            seconds[name].append(time.process_time() - before)
    return {name: min(taken[1:]) for name, taken in seconds.items()}


def _timed_commands(scale: Scale, files: Files) -> dict[str, float]:
    """Device-seconds, from the manifests of the commands that wrote and scored: wall seconds x devices."""

    def seconds(output: Path, devices: int) -> float:
        return float((read_manifest(output) or {})["wall_seconds"]) * devices

    engine = GeneratorOptions(**scale.policy, model=scale.generators[scale.base])
    writing, scoring = scale.devices("sample", engine), scale.devices("score")
    numbers: dict[str, float] = {}
    for policy, scores in files.scores.items():
        generation = seconds(files.generated[policy], writing)
        for way, path in scores.items():
            numbers[f"{policy}/{way}/time"] = 1 + seconds(path, scoring) / generation
            relative_size = scale.parameters[scale.base] / scale.parameters[policy]
            numbers[f"{policy}/{way}/operations"] = 1 + PASSES[way] * relative_size
    return numbers


def at_paper_sizes(way: str) -> str:
    """Operations relative to generation, in per cent, for the paper's PRM and three generators."""
    paper = read_scale("paper")
    prm = paper.parameters[paper.base]
    totals = (100 * (1 + PASSES[way] * prm / paper.parameters[name]) for name in paper.generators)
    return " / ".join(f"{total:.0f}" for total in totals)


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Totals beside the paper's, and whether the second model's time can be spared."""
    ways = [way for way in PASSES if f"{way}/time" in seeds]
    policies = tuple(scale.generators)

    def row(way: str) -> tuple[Cell, ...]:
        return (
            *(seeds.of(f"{policy}/{way}/time") for policy in policies),
            seeds.of(f"{way}/time"),
            *(seeds.of(f"{policy}/{way}/operations") for policy in policies),
            PAPER.get(way),
            at_paper_sizes(way),
        )

    return Finding(
        name="inference-cost",
        title="What does scoring add to the time for generation?",
        purpose="Generation and scoring of the same responses, by ordinary and implicit PRMs.",
        differs=_differs(scale),
        tables=(
            Table(
                title="Generation and scoring, relative to generation alone",
                columns=(
                    *(f"{policy}, time" for policy in policies),
                    "mean time",
                    *(f"{policy}, operations" for policy in policies),
                    "paper's time",
                    "operations at the paper's sizes",
                ),
                rows=tuple((way, row(way)) for way in ways),
                caption=(
                    "Per cent; generation alone is 100. The paper's are for Mistral-7B / Llama-3.1-8B / "
                    "Llama-3.1-70B with an 8B reward model; operations count 2 for each parameter and token."
                ),
                digits=0,
            ),
        ),
        checks=tuple(_checks(seeds, ways, policies)),
        plots=(
            intervals_plot(
                "inference-cost",
                "Generation and scoring relative to generation alone, mean over generators",
                "Time, in per cent of generation",
                {way: seeds.of(f"{way}/time") for way in ways},
                reference=1.0,
            ),
        ),
        notes=tuple(_notes(seeds, policies)),
    )


def _differs(scale: Scale) -> str:
    if scale.is_lab:
        return (
            "The lab's generators are of one size. One response per problem, in one process with the same "
            f"threads, processor time, the fastest of {TURNS} turns."
        )
    return (
        "Time is device-seconds of each command, loading of models included: wall seconds times the devices "
        "that it runs on, of which generation and scoring take different numbers."
    )


_READ_TWICE = (
    "The base model reads each response twice, with and without the adapter, which saves memory but not time."
)


def _checks(seeds: Seeds, ways: list[str], policies: tuple[str, ...]) -> list[Check]:
    live = _relative_scoring(seeds, LIVE)
    checks = [
        Check(
            claim=f"With a live reference scoring takes {NEAR:g} to 2.5 times an ordinary PRM's time.",
            paper="2.0 times with each generator (202, 142, 22 against 101, 71, 11)",
            here=f"{format_estimate(live, percent=False, digits=2)} times",
            verdict=all_of([is_above(live, NEAR), is_below(live, 2.5)]),
        )
    ]
    spared = {CACHED: "A cached reference", FREE: "No reference", ADAPTER: "One base with an adapter"}
    for way, subject in spared.items():
        if way not in ways:
            continue
        times = _relative_scoring(seeds, way)
        verdict = is_below(times, NEAR)
        checks.append(
            Check(
                claim=f"{subject} reduces the time for scoring to below {NEAR:g} times an ordinary PRM's.",
                paper="not measured; with a live reference 2.0 times",
                here=f"{format_estimate(times, percent=False, digits=2)} times",
                verdict=verdict,
                why=_READ_TWICE if way == ADAPTER and verdict == "does not hold" else "",
            )
        )
    return [*checks, _larger_generator(seeds, policies)]


def _relative_scoring(seeds: Seeds, way: str) -> Estimate:
    """Time of scoring alone over that of an ordinary PRM."""
    return seeds.derived(lambda numbers: (numbers[f"{way}/time"] - 1) / (numbers[f"{ORDINARY}/time"] - 1))


def _larger_generator(seeds: Seeds, policies: tuple[str, ...]) -> Check:
    """Only where the generators differ in size is there anything to measure."""
    first, last = (f"{policies[place]}/{LIVE}" for place in (0, -1))
    same_size = abs(seeds.difference(f"{first}/operations", f"{last}/operations").mean) < 0.01
    less = seeds.difference(f"{first}/time", f"{last}/time")
    verdict: Verdict = "not measured" if same_size else is_above(less)
    return Check(
        claim="The larger the generator, the less scoring adds.",
        paper="with reference 302, 242, 122% for 7B, 8B, 70B",
        here=f"operations at those sizes: {at_paper_sizes(LIVE)}%"
        + (
            "; the generators here are of one size"
            if same_size
            else f"; the time is lower by {format_estimate(less)}%"
        ),
        verdict=verdict,
    )


def _notes(seeds: Seeds, policies: tuple[str, ...]) -> list[str]:
    if "threads" not in seeds:
        return []
    times = {policy: seeds.of(f"{policy}/generation/milliseconds") for policy in policies}
    return [
        f"Generation takes, in milliseconds per response, with {seeds.of('threads').mean:.0f} thread(s): "
        f"{format_estimates(times, percent=False, sign=False)}."
    ]


EXPERIMENT = Experiment("inference-cost", prepare, measure, conclude)

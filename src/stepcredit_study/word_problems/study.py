"""``stepcredit reproduce word-problems``: a real language model writes, errs, and is judged.

Purpose: does an implicit PRM, trained on nothing but whether final answers are right, order right before
wrong responses of a real language model, and see the step that slips, better than what needs no training?
What is measured and how was decided beforehand: docs/preregistration.md.

Stages are ordinary commands whose outputs lie in ``OUT/store``; a run that was stopped goes on, and with
``--minutes`` it stops by itself. ``OUT/results.json`` is written anew after each stage that adds to it, the
dearest last: the middle policy before the others, CE and DPO before the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stepcredit.checkpoints.sources import resolve
from stepcredit.pipelines.driver import Store
from stepcredit.runs import run_facts, write_json
from stepcredit_study.analyses.operations import operations
from stepcredit_study.frame.world import Responses
from stepcredit_study.word_problems.choices import Chosen, choose
from stepcredit_study.word_problems.evidence import REFERENCE, Evidence, best_aggregate
from stepcredit_study.word_problems.outcomes import outcomes
from stepcredit_study.word_problems.policies import Lengths, find_middle, policy_at, tune
from stepcredit_study.word_problems.scale import FEW_RESPONSES, FIRST, OTHER_KIND, WordScale
from stepcredit_study.word_problems.sources import ProblemSource
from stepcredit_study.word_problems.variants import VARIANTS
from stepcredit_study.word_problems.world import WordWorld

RESULTS = "results.json"


@dataclass(kw_only=True)
class Study:
    """One run.

    Attributes:
        lengths: Of the policies' fine-tuning, once they are known.
        chosen: Method to what was chosen, in the order in which they were trained.
        blocks: (templates, policy) to the blocks of responses that are there.
        varied: (method, variant) to its model and its aggregate, chosen on development problems.
    """

    source: ProblemSource
    model: Path
    out: Path
    scale: WordScale
    go_on: Callable[[], bool]
    lengths: Lengths | None = None
    chosen: dict[str, Chosen] = field(default_factory=dict)
    blocks: dict[tuple[str, str], list[Responses]] = field(default_factory=dict)
    varied: dict[tuple[str, str], tuple[Path, str]] = field(default_factory=dict)
    _evaluated: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """Where outputs are kept."""
        return Store(self.out / "store")

    @property
    def policies(self) -> Path:
        """Where fine-tuning lies."""
        return self.out / "policies"

    @property
    def world(self) -> WordWorld:
        """What responses and models are asked of."""
        assert self.lengths is not None, "the middle policy is found first"
        names = ("weak", "middle", "strong")
        policies = {name: policy_at(self.policies, getattr(self.lengths, name)) for name in names}
        return WordWorld(self.source, self.scale, self.store, policies)

    def run(self) -> None:
        """All stages that there is time for; the results are written after each."""
        for stage in self._stages():
            if not self.go_on():
                break
            stage()
            write_json(self.out / RESULTS, self.results())

    def _stages(self) -> Iterator[Callable[[], object]]:
        yield self._find_middle
        if self.lengths is None:
            return
        first, *rest = self.world.test_blocks("middle")
        yield from self._answers("middle", first)
        yield from (partial(self._choose, method) for method in self.scale.methods)
        for block in rest:
            yield from self._answers("middle", block)
        for policy in ("weak", "strong"):
            length = getattr(self.lengths, policy)
            yield partial(tune, self.source, self.model, self.policies, self.scale, length)
            for block in self.world.test_blocks(policy):
                yield from self._answers(policy, block)
        for method in (method for method in FIRST if method in self.chosen):
            for name in self.scale.variants:
                if name != OTHER_KIND or self.source.has_arithmetic:
                    yield partial(self._vary, method, name)

    def _answers(self, policy: str, block: tuple[int, int]) -> Iterator[Callable[[], object]]:
        """One block of each test set."""
        return (partial(self._answer, templates, policy, block) for templates in self.source.test_sets)

    def _find_middle(self) -> None:
        self.lengths = find_middle(self.source, self.model, self.policies, self.store, self.scale, self.go_on)

    def _answer(self, templates: str, policy: str, block: tuple[int, int]) -> None:
        responses = self.world.test_block(self.source.test_sets[templates], policy, *block)
        self.blocks.setdefault((templates, policy), []).append(responses)

    def _choose(self, method: str) -> None:
        self.chosen[method] = choose(self.world, method)

    def _vary(self, method: str, name: str) -> None:
        world, variant = self.world, VARIANTS[name]
        model = variant.model(world, method, self.chosen[method].settings)
        dev = world.dev_set()
        scores = variant.score(world, dev, model)
        self.varied[method, name] = model, best_aggregate(dev, world.reference_scores(dev), scores)[0]

    def results(self) -> dict[str, Any]:
        """What is known so far, JSON-able; of what was not run there is nothing."""
        known: dict[str, Any] = {
            "source": self.source.name,
            "test sets": list(self.source.test_sets),
            "scale": asdict(self.scale),
            **run_facts(),
        }
        if self.lengths is None:
            return known
        known["policies"] = self.lengths.to_json()
        known["chosen"] = {method: chosen.to_json() for method, chosen in self.chosen.items()}
        known["operations"] = {
            method: self._operations_of(method, self.world.train_set(), self.models(method)[0])
            for method in self.chosen
        }
        known["operations of a few"] = {
            method: self._operations_of(method, self.world.part_of_train_set(responses=2), model)
            for (method, variant), (model, _) in self.varied.items()
            if variant == FEW_RESPONSES
        }
        known["outcomes"] = {
            f"{templates}/{policy}": self._known(templates, policy) for templates, policy in self.blocks
        }
        return known

    def models(self, method: str) -> list[Path]:
        """A method's model of each seed, with its chosen settings."""
        settings = self.chosen[method].settings
        return [self.world.train(method, settings, seed=seed) for seed in range(self.scale.num_seeds(method))]

    def _known(self, templates: str, policy: str) -> dict[str, Any]:
        """The outcomes of a test set, computed anew only where blocks or methods were added."""
        blocks = self.blocks[templates, policy]
        varied = self.varied if policy == "middle" else {}
        state = len(blocks), tuple(self.chosen), tuple(varied)
        if (templates, policy) not in self._evaluated or self._evaluated[templates, policy][0] != state:
            self._evaluated[templates, policy] = state, self._outcomes(blocks, varied)
        return self._evaluated[templates, policy][1]

    def _outcomes(
        self, blocks: list[Responses], varied: Mapping[tuple[str, str], tuple[Path, str]]
    ) -> dict[str, Any]:
        world = self.world
        scores = {REFERENCE: [[world.reference_scores(block.distinct) for block in blocks]]}
        for method in self.chosen:
            scores[method] = [
                [world.score(block.distinct, model) for block in blocks] for model in self.models(method)
            ]
        responses = Responses(
            world.joined([block.graded for block in blocks]),
            world.joined([block.distinct for block in blocks]),
        )
        evidence = Evidence(
            responses,
            {method: [world.joined(files) for files in seeds] for method, seeds in scores.items()},
            {method: chosen.aggregate for method, chosen in self.chosen.items()},
            self.scale.ns,
            {
                (method, name): (
                    world.joined([VARIANTS[name].score(world, block.distinct, model) for block in blocks]),
                    aggregate,
                )
                for (method, name), (model, aggregate) in varied.items()
            },
        )
        return outcomes(evidence, {name: chosen.temperature for name, chosen in self.chosen.items()})

    def _operations_of(self, method: str, data: Path, model: Path) -> dict[str, float]:
        return operations(
            data,
            self.world.labels(method),
            model,
            paired=method in ("implicit-dpo", "implicit-nca"),
            has_reference=method.startswith("implicit"),
            mismatched=method == "implicit-kto",
        )


def run_study(
    source: ProblemSource, model: str, out: Path, scale: WordScale, *, minutes: float | None = None
) -> Study:
    """Run, or go on with, a study; its results lie in ``out/results.json``.

    Args:
        model: Initial weights of the policies: a directory or hub id.
        minutes: No stage begins after so long.

    Raises:
        UserError: There is no such model.
    """
    deadline = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    study = Study(
        source=source, model=resolve(model), out=out, scale=scale, go_on=lambda: time.monotonic() < deadline
    )
    study.run()
    return study

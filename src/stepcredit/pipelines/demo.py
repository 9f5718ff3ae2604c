"""Run the whole loop in the lab: sample, grade, train, score, evaluate, report.

A language model is trained on nothing but "the final answer was right or wrong"; then its step rewards are
compared with the truly wrong steps, and its picks with majority voting. A run that was killed continues from
the last finished stage when the same command is run again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stepcredit.generators.options import GeneratorOptions, SamplingOptions
from stepcredit.options import check_at_least_one, option
from stepcredit.pipelines import eval_best_of_n, grade, sample, score, train
from stepcredit.pipelines.driver import Store, command_line
from stepcredit.runs import beside, locked, may_fork, read_manifest, write_json, write_text
from stepcredit.runs.stopwatch import WHOLE, Stopwatch
from stepcredit.training.config import TrainConfig

if TYPE_CHECKING:
    from stepcredit.reports.summary import DemoSummary, PolicyFindings

Made = TypeVar("Made")

POLICIES = ("weak", "mid", "strong")
PRM, REFERENCE = "implicit-prm", "reference-log-probability"
SCORES = {PRM: "scores.jsonl", REFERENCE: "reference-scores.jsonl"}
NS, AGGREGATE = (1, 4, 16, 64), "min"
_NUM_EXAMPLES = {"num_wrong": 9, "num_right": 3}
_FILES = {
    "policies/": "three small language models as ordinary checkpoints; mid is the PRM's start and reference",
    "train/prompts.jsonl": "number of training problems",
    "train/rollouts.jsonl": "responses of the mid policy",
    "train/graded.jsonl": "the same, with the final answer graded: the only labels that training sees",
    "dev/graded.jsonl": "responses to other problems, for choosing the weights to keep",
    "prm/": "the implicit PRM: an ordinary checkpoint with prm.json and its training log",
    "test-mid/graded.jsonl": "responses to the problems that results are reported on",
    "test-mid/scores.jsonl": "their step, response and aggregate rewards",
    "test-mid/reference-scores.jsonl": "their log-probability under the reference",
    "test-mid/labelled.jsonl": "the rule oracle's step labels, used only to judge",
    "summary.json": "every number of this report",
}


@dataclass(frozen=True, kw_only=True)
class LabSizes:
    """Amount of data."""

    train_problems: int = option("number of training problems", default=1000)
    train_responses: int = option("number of responses to each", default=8)
    dev_problems: int = option("number of held-out problems, for choosing the weights to keep", default=100)
    test_problems: int = option("number of problems that results are reported on", default=200)
    test_responses: int = option("number of responses to each", default=64)

    def __post_init__(self) -> None:
        check_at_least_one(self, *(entry.name for entry in fields(self)))


@dataclass(frozen=True, kw_only=True)
class LabSampling:
    """How the lab's policies are sampled."""

    temperature: float = option("sampling temperature", default=1.0)
    top_p: float = option(
        "sample from the smallest set of tokens that reaches this probability", default=0.95
    )
    train_top_p: float = option("the same, for training responses", default=1.0)

    def options(self, *, training: bool) -> SamplingOptions:
        """As ``stepcredit sample`` takes them."""
        return SamplingOptions(
            temperature=self.temperature,
            top_p=self.train_top_p if training else self.top_p,
            max_new_tokens=64,
        )


def lab_training() -> TrainConfig:
    """The lab's training settings, chosen on development problems."""
    return TrainConfig(
        objective="ce",
        beta=0.5,
        learning_rate=2e-4,
        batch_size=64,
        epochs=2.0,
        step_rule="newline",
        tokens_per_forward=4096,
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the demo writes, and how large it is."""

    out: Path = option(
        "directory for everything that the demo makes", default=Path("runs/demo"), metavar="DIR"
    )
    seed: int = option("redraws problems, responses and the order of training", default=0)
    sizes: LabSizes = field(default_factory=LabSizes)
    sampling: LabSampling = field(default_factory=LabSampling)
    training: TrainConfig = field(default_factory=lab_training)
    overwrite: bool = option("start over and replace any existing output", default=False)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Where the report is, and the headline."""

    out: Path
    summary: DemoSummary

    def to_json(self) -> Any:
        """The summary."""
        return self.summary.to_json()

    def to_text(self) -> str:
        """The result in three sentences, with the numbers of this run."""
        mid = self.summary.policies["mid"]
        accuracy = {(row.method, row.scorer, row.aggregate, row.n): row.accuracy for row in mid.results}
        largest = max(row.n for row in mid.results)
        single = accuracy["pass", None, None, 1]
        lines = [f"mid policy, {mid.num_problems} held-out problems, one response right in {single:.1%}"]
        lines += [
            f"  best of {n:>2}: majority vote {accuracy['majority', None, None, n]:.1%}, "
            f"implicit PRM by its lowest step {accuracy['best-of-n', PRM, 'min', n]:.1%}"
            for n in dict.fromkeys((16, largest))
            if ("majority", None, None, n) in accuracy
        ]
        auc = mid.steps.auc.estimate
        lines.append(f"  first wrong step against right steps: AUC {auc:.3f}, no step label used")
        return "\n".join([*lines, "", f"report: {self.out / 'report.html'}"])


def run(options: Options) -> Result:
    """Run the stages that are not complete yet, then evaluate and report."""
    with locked(options.out):
        return _run(options)


def _run(options: Options) -> Result:
    from stepcredit.lab.files import write_policies
    from stepcredit.reports.demo import render_demo
    from stepcredit.reports.examples import first_of_each_problem
    from stepcredit.reports.summary import DemoSummary, training_data

    out = options.out
    watch = Stopwatch(out / "seconds.json", overwrite=options.overwrite)
    work = _Work(options, watch)
    with watch.stage(WHOLE):
        with watch.stage("policies"):
            write_policies(out / "policies", overwrite=options.overwrite)
        policies = work.policies()
    manifest = read_manifest(out / "prm") or {}
    summary = DemoSummary(
        seed=options.seed,
        policies=policies,
        settings={
            "sizes": asdict(options.sizes),
            "sampling": asdict(options.sampling),
            "training": asdict(options.training),
        },
        training=training_data(out / "train" / "graded.jsonl"),
        examples=first_of_each_problem(
            out / "test-mid" / "labelled.jsonl", out / "test-mid" / SCORES[PRM], **_NUM_EXAMPLES
        ),
        commands=tuple(work.stages.commands()),
        versions=manifest.get("versions", {}),
        seconds=watch.seconds,
        files=_FILES,
        git_commit=manifest.get("git_commit"),
        finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    write_json(out / "summary.json", summary.to_json())
    write_text(out / "report.html", render_demo(summary, out))
    return Result(out=out, summary=summary)


class _Work:
    """The demo's stages; a second processor does what need not wait for others."""

    def __init__(self, options: Options, watch: Stopwatch) -> None:
        self.options, self.watch, self.stages = options, watch, _Stages(options)
        self.store = Store(options.out, overwrite=options.overwrite)

    def policies(self) -> dict[str, PolicyFindings]:
        """Run every stage; what was measured on the responses of each policy."""
        with self._beside("test responses", self._test_responses) as wait:
            self._train()
            wait()
        first, *others = POLICIES
        with self._beside("scoring and evaluation", partial(self._measure, [first])) as wait:
            measured = self._measure(others, self.watch)
            return wait() | measured

    @contextmanager
    def _beside(self, title: str, work: Callable[[Stopwatch], Made]) -> Iterator[Callable[[], Made]]:
        """As :func:`~stepcredit.runs.beside`; the processors are shared, and the times of both are taken."""
        import torch

        from stepcredit.checkpoints import pick_device

        forks = may_fork() and pick_device("auto") == "cpu"
        if forks:
            _import_all()
        threads = torch.get_num_threads()

        def timed() -> tuple[Made, dict[str, float]]:
            if forks:
                torch.set_num_threads(1)
            watch = Stopwatch()
            return work(watch), watch.seconds

        def waited() -> Made:
            made, seconds = wait()
            self.watch.add(seconds)
            return made

        print(f"{title} ...", file=sys.stderr, flush=True)
        with beside(timed, forks=forks) as wait:
            if forks:
                torch.set_num_threads(max(1, threads - 1))
            try:
                yield waited
            finally:
                torch.set_num_threads(threads)

    def _train(self) -> None:
        with self.watch.stage("training responses"):
            self._draw("train", "train", self.options.sizes.train_problems)
            self._draw("dev", "development", self.options.sizes.dev_problems)
        with self.watch.stage("training"):
            self.store.run("train", self.stages.train())

    def _test_responses(self, watch: Stopwatch) -> None:
        """Draw and grade, label and score by the reference: all that needs no trained model."""
        from stepcredit.lab.files import write_true_labels

        for policy in POLICIES:
            folder = f"test-{policy}"
            with watch.stage("test responses"):
                self._draw(folder, "test", self.options.sizes.test_problems)
                graded = self.options.out / folder / "graded.jsonl"
                write_true_labels(
                    graded, graded.with_name("labelled.jsonl"), overwrite=self.options.overwrite
                )
            with watch.stage("scoring"):
                self.store.run("score", self.stages.score_by_reference(folder))

    def _draw(self, folder: str, split: str, count: int) -> None:
        from stepcredit.lab.files import write_prompts

        options = self.options
        prompts = options.out / folder / "prompts.jsonl"
        write_prompts(prompts, split, seed=options.seed, count=count, overwrite=options.overwrite)
        self.store.run("sample", self.stages.sample(folder))
        self.store.run("grade", self.stages.grade(folder))

    def _measure(self, policies: Sequence[str], watch: Stopwatch) -> dict[str, PolicyFindings]:
        findings = {}
        for policy in policies:
            with watch.stage("scoring"):
                self.store.run("score", self.stages.score(f"test-{policy}"))
            with watch.stage("evaluation"):
                findings[policy] = _findings(self.options.out / f"test-{policy}")
        return findings


def _import_all() -> None:
    """What takes seconds to import, once for both processes."""
    for module in ("generators.transformers", "training.run", "reports.summary"):
        import_module(f"stepcredit.{module}")


@dataclass(frozen=True, slots=True)
class _Stages:
    """The demo's commands: what is read and written, and with which settings."""

    demo: Options

    @property
    def mid(self) -> Path:
        return self.demo.out / "policies" / "mid"

    def sample(self, folder: str) -> sample.Options:
        sizes, training = self.demo.sizes, not folder.startswith("test-")
        model = self.mid if training else self.demo.out / "policies" / folder.removeprefix("test-")
        return sample.Options(
            prompts=self.demo.out / folder / "prompts.jsonl",
            out=self.demo.out / folder / "rollouts.jsonl",
            num_samples=sizes.train_responses if training else sizes.test_responses,
            seed=self.demo.seed,
            policy=GeneratorOptions(model=str(model), policy_name=model.name),
            draw=self.demo.sampling.options(training=training),
        )

    def grade(self, folder: str) -> grade.Options:
        return grade.Options(
            rollouts=self.demo.out / folder / "rollouts.jsonl",
            grader="exact",
            answer_pattern=r"#(\d)\s*$",
            out=self.demo.out / folder / "graded.jsonl",
        )

    def train(self) -> train.Options:
        return train.Options(
            graded=self.demo.out / "train" / "graded.jsonl",
            dev=self.demo.out / "dev" / "graded.jsonl",
            model=str(self.mid),
            out=self.demo.out / "prm",
            config=self.demo.training,
            seed=self.demo.seed,
        )

    def score(self, folder: str) -> score.Options:
        directory = self.demo.out / folder
        return score.Options(
            input=directory / "graded.jsonl", prm=str(self.demo.out / "prm"), out=directory / SCORES[PRM]
        )

    def score_by_reference(self, folder: str) -> score.Options:
        directory = self.demo.out / folder
        return score.Options(
            input=directory / "graded.jsonl",
            prm=str(self.mid),
            reference_free=True,
            beta=1.0,
            steps="newline",
            out=directory / SCORES[REFERENCE],
        )

    def evaluate(self, folder: str) -> eval_best_of_n.Options:
        directory = self.demo.out / folder
        scores = tuple(f"{name}={directory / file}" for name, file in SCORES.items())
        return eval_best_of_n.Options(
            graded=directory / "graded.jsonl", scores=scores, n=NS, aggregate=AGGREGATE
        )

    def commands(self) -> Iterator[str]:
        """The loop on the mid policy, as it is typed."""
        for command, options in (
            ("sample", self.sample("train")),
            ("grade", self.grade("train")),
            ("train", self.train()),
            ("sample", self.sample("test-mid")),
            ("grade", self.grade("test-mid")),
            ("score", self.score("test-mid")),
            ("eval best-of-n", self.evaluate("test-mid")),
        ):
            yield command_line(command, options, {})


def _findings(folder: Path) -> PolicyFindings:
    """What the files of one policy's test responses show: all that the commands would say, each read once."""
    from stepcredit.data import read_rollouts
    from stepcredit.evaluation.best_of_n import BestOfNSettings
    from stepcredit.evaluation.best_of_n_evaluation import evaluate_best_of_n
    from stepcredit.evaluation.samples import join
    from stepcredit.evaluation.score_columns import read_score_columns
    from stepcredit.reports.summary import policy_findings

    rollouts = list(read_rollouts(folder / "labelled.jsonl"))
    columns = {name: read_score_columns(folder / file) for name, file in SCORES.items()}
    return policy_findings(
        evaluate_best_of_n(join(rollouts, columns), BestOfNSettings(ns=NS), aggregate=AGGREGATE),
        rollouts,
        scores=columns[PRM],
        reference_scores=columns[REFERENCE],
    )

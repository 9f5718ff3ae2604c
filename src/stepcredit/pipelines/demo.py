"""Run the whole loop in the lab: sample, grade, train, score, evaluate, report.

A language model is trained on nothing but "the final answer was right or wrong"; then its step rewards are
compared with the truly wrong steps, and its picks with majority voting. A run that was killed continues from
the last finished stage when the same command is run again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.generators.options import GeneratorOptions, SamplingOptions
from stepcredit.options import check_at_least_one, option
from stepcredit.pipelines import eval_best_of_n, grade, sample, score, train
from stepcredit.pipelines.driver import Store, command_line
from stepcredit.runs import atomic_path, locked, read_manifest, write_json
from stepcredit.training.config import TrainConfig

if TYPE_CHECKING:
    from stepcredit.reports.summary import DemoSummary, PolicyFindings

POLICIES = ("weak", "mid", "strong")
PRM, REFERENCE = "implicit-prm", "reference-log-probability"
SCORES = {PRM: "scores.jsonl", REFERENCE: "reference-scores.jsonl"}
NS = (1, 4, 16, 64)
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
    """Where the report is, and the headline.

    Attributes:
        out: The demo's directory.
        summary: What was measured.
    """

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
    from stepcredit.lab.files import write_policies, write_prompts, write_true_labels
    from stepcredit.reports.demo import render_demo
    from stepcredit.reports.examples import first_of_each_problem
    from stepcredit.reports.summary import DemoSummary, training_data

    out, overwrite = options.out, options.overwrite
    stages = _Stages(options)
    store = Store(out, overwrite=overwrite)
    watch = _Stopwatch(out / "seconds.json", overwrite=overwrite)

    def responses(folder: str, split: str, count: int) -> None:
        prompts = out / folder / "prompts.jsonl"
        write_prompts(prompts, split, seed=options.seed, count=count, overwrite=overwrite)
        store.run("sample", stages.sample(folder))
        store.run("grade", stages.grade(folder))

    with watch.stage("policies"):
        write_policies(out / "policies", overwrite=overwrite)
    with watch.stage("training responses"):
        responses("train", "train", options.sizes.train_problems)
        responses("dev", "development", options.sizes.dev_problems)
    with watch.stage("training"):
        store.run("train", stages.train())
    for policy in POLICIES:
        folder = f"test-{policy}"
        with watch.stage("test responses"):
            responses(folder, "test", options.sizes.test_problems)
        with watch.stage("scoring"):
            write_true_labels(
                out / folder / "graded.jsonl", out / folder / "labelled.jsonl", overwrite=overwrite
            )
            store.run("score", stages.score(folder))
            store.run("score", stages.score_by_reference(folder))
    with watch.stage("evaluation"):
        policies = {policy: _findings(stages.evaluate(f"test-{policy}")) for policy in POLICIES}
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
        commands=tuple(stages.commands()),
        versions=manifest.get("versions", {}),
        seconds=watch.seconds,
        files=_FILES,
        git_commit=manifest.get("git_commit"),
        finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    write_json(out / "summary.json", summary.to_json())
    with atomic_path(out / "report.html") as temporary:
        temporary.write_text(render_demo(summary, out), encoding="utf-8")
    return Result(out=out, summary=summary)


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
        return eval_best_of_n.Options(graded=directory / "graded.jsonl", scores=scores, n=NS, aggregate="min")

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


def _findings(options: eval_best_of_n.Options) -> PolicyFindings:
    """What the files of one policy's test responses show."""
    from stepcredit.reports.summary import policy_findings

    folder = options.graded.parent
    return policy_findings(
        eval_best_of_n.run(options).evaluation,
        folder / "labelled.jsonl",
        scores=folder / SCORES[PRM],
        reference_scores=folder / SCORES[REFERENCE],
    )


class _Stopwatch:
    """Seconds of each stage, kept in a file, so that a run that goes on remembers the earlier ones."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        earlier = path.is_file() and not overwrite
        self.seconds: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if earlier else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a stage, which may come in several parts or runs."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            yield
        finally:
            taken = time.monotonic() - started
            self.seconds[name] = round(self.seconds.get(name, 0.0) + taken, 2)
            write_json(self.path, self.seconds)

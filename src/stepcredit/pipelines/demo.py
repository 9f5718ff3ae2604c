"""The whole loop on the lab: sample, grade, train, score, evaluate, report.

A language model is trained on nothing but "the final answer was right or wrong"; then its step rewards are
compared with the truly wrong steps, and its picks with majority voting. Killed and run again, it goes on
from the last finished stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.options import option
from stepcredit.pipelines import lab_run
from stepcredit.pipelines.lab_run import POLICIES, LabSampling, LabSizes, Stopwatch
from stepcredit.runs import atomic_path, locked, write_json
from stepcredit.training.config import TrainConfig

if TYPE_CHECKING:
    from stepcredit.reports.summary import DemoSummary


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the demo writes, and how large it is."""

    out: Path = option("directory of everything it makes", default=Path("runs/demo"), metavar="DIR")
    seed: int = option("redraws problems, responses and the order of training", default=0)
    sizes: LabSizes = field(default_factory=LabSizes)
    sampling: LabSampling = field(default_factory=LabSampling)
    training: TrainConfig = field(default_factory=lab_run.lab_training)
    overwrite: bool = option("start anew, whatever is there", default=False)


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
        from stepcredit.reports.summary import summary_to_json

        return summary_to_json(self.summary)

    def to_text(self) -> str:
        """A few lines for a person."""
        from stepcredit.pipelines.demo_summary import headline

        return f"{headline(self.summary)}\n\nreport: {self.out / 'report.html'}"


def run(options: Options) -> Result:
    """Run the stages that are not complete yet, then evaluate and report."""
    with locked(options.out):
        return _run(options)


def _run(options: Options) -> Result:
    from stepcredit.pipelines.demo_summary import summarise
    from stepcredit.reports.demo import render_demo
    from stepcredit.reports.summary import summary_to_json

    out, overwrite = options.out, options.overwrite
    stopwatch = Stopwatch(out / "seconds.json", overwrite=overwrite)
    with stopwatch.stage("policies"):
        lab_run.write_policies(out / "policies", overwrite=overwrite)
    mid = out / "policies" / "mid"
    with stopwatch.stage("training responses"):
        _responses(options, "train", split="train", policy=mid, training=True)
        _responses(options, "dev", split="development", policy=mid, training=True)
    with stopwatch.stage("training"):
        graded, dev = out / "train" / "graded.jsonl", out / "dev" / "graded.jsonl"
        lab_run.train_prm(
            graded, dev, mid, out / "prm", options.training, seed=options.seed, overwrite=overwrite
        )
    for policy in POLICIES:
        directory = f"test-{policy}"
        with stopwatch.stage("test responses"):
            _responses(options, directory, split="test", policy=out / "policies" / policy, training=False)
        with stopwatch.stage("scoring"):
            lab_run.label_wrong_steps(out / directory, overwrite=overwrite)
            lab_run.score_rollouts(out / directory, out / "prm", mid, overwrite=overwrite)
    with stopwatch.stage("evaluation"):
        summary = summarise(out, options)
    summary = replace(summary, seconds=stopwatch.seconds)
    write_json(out / "summary.json", summary_to_json(summary))
    with atomic_path(out / "report.html") as temporary:
        temporary.write_text(render_demo(summary, out), encoding="utf-8")
    return Result(out=out, summary=summary)


def _responses(options: Options, directory: str, *, split: str, policy: Path, training: bool) -> None:
    """Draw problems of a split, and the policy's graded responses to them."""
    sizes = options.sizes
    counts = {
        "train": (sizes.train_problems, sizes.train_responses),
        "development": (sizes.dev_problems, sizes.train_responses),
        "test": (sizes.test_problems, sizes.test_responses),
    }
    num_problems, num_samples = counts[split]
    target, overwrite = options.out / directory, options.overwrite
    lab_run.write_prompts(
        target / "prompts.jsonl", split, seed=options.seed, count=num_problems, overwrite=overwrite
    )
    lab_run.sample_and_grade(
        target,
        policy,
        num_samples=num_samples,
        sampling=options.sampling.options(training=training),
        seed=options.seed,
        overwrite=overwrite,
    )

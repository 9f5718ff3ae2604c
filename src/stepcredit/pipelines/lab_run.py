"""The steps of a lab run, by the same pipelines that the commands call.

Every step writes files that the other commands read, and is skipped where its output is already complete.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from stepcredit.options import check_at_least_one, option
from stepcredit.pipelines import eval_best_of_n, grade, sample, score, train
from stepcredit.pipelines.generator_options import GeneratorOptions, SamplingOptions
from stepcredit.runs import Manifest, Output, write_json
from stepcredit.training.config import TrainConfig

POLICIES = ("weak", "mid", "strong")
PRM_SCORES, REFERENCE_SCORES = "implicit-prm", "reference-log-probability"
ANSWER_PATTERN = r"#(\d)\s*$"
MAX_NEW_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class LabSizes:
    """How much is sampled."""

    train_problems: int = option("training problems", default=1000)
    train_responses: int = option("responses to each", default=8)
    dev_problems: int = option("held-out problems for choosing the weights to keep", default=100)
    test_problems: int = option("problems that results are reported on", default=200)
    test_responses: int = option("responses to each", default=64)

    def __post_init__(self) -> None:
        check_at_least_one(self, *(each.name for each in fields(self)))


@dataclass(frozen=True, kw_only=True)
class LabSampling:
    """How the lab's policies are sampled."""

    temperature: float = option("divides the logits", default=1.0)
    top_p: float = option("smallest set of tokens that reaches this probability", default=0.95)
    train_top_p: float = option("the same, for training responses", default=1.0)

    def options(self, *, training: bool) -> SamplingOptions:
        """As ``stepcredit sample`` takes them."""
        return SamplingOptions(
            temperature=self.temperature,
            top_p=self.train_top_p if training else self.top_p,
            max_new_tokens=MAX_NEW_TOKENS,
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


class Stopwatch:
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


def write_policies(directory: Path, *, overwrite: bool) -> None:
    """Copy the shipped policies to ``directory``."""
    from stepcredit.checkpoints import weights_hash
    from stepcredit.lab.policies import export_policies, policy_path

    manifest = Manifest("lab policies", {name: weights_hash(policy_path(name)) for name in POLICIES})
    with Output(directory, manifest, overwrite=overwrite) as output:
        if not output.complete:
            with output.replacing_folder() as temporary:
                export_policies(temporary)


def write_prompts(path: Path, split: str, *, seed: int, count: int, overwrite: bool) -> None:
    """Draw problems of a split and write them as prompts."""
    from stepcredit.data import prompt_to_json, write_rows_into
    from stepcredit.lab.task import make_prompts

    manifest = Manifest("lab prompts", {"split": split, "seed": seed, "count": count})
    with Output(path, manifest, overwrite=overwrite) as output:
        if not output.complete:
            prompts = make_prompts(split, seed=seed, count=count)
            with output.replacing() as temporary:
                write_rows_into(temporary, path, map(prompt_to_json, prompts))


def sample_and_grade(
    directory: Path,
    policy: Path,
    *,
    num_samples: int,
    sampling: SamplingOptions,
    seed: int,
    overwrite: bool,
) -> Path:
    """``prompts.jsonl`` of a directory to ``rollouts.jsonl`` and ``graded.jsonl``; returns the latter."""
    sample.run(
        sample.Options(
            prompts=directory / "prompts.jsonl",
            out=directory / "rollouts.jsonl",
            num_samples=num_samples,
            seed=seed,
            policy=GeneratorOptions(model=str(policy), policy_name=policy.name),
            draw=sampling,
            overwrite=overwrite,
        )
    )
    grade.run(
        grade.Options(
            rollouts=directory / "rollouts.jsonl",
            grader="exact",
            answer_pattern=ANSWER_PATTERN,
            out=directory / "graded.jsonl",
            overwrite=overwrite,
        )
    )
    return directory / "graded.jsonl"


def train_prm(
    graded: Path, dev: Path | None, model: Path, out: Path, config: TrainConfig, *, seed: int, overwrite: bool
) -> train.Result:
    """Train a reward model whose reference is its initial weights."""
    options = train.Options(
        graded=graded, model=str(model), out=out, dev=dev, config=config, seed=seed, overwrite=overwrite
    )
    result = train.run(options)
    assert isinstance(result, train.Result), "no dry run was asked for"
    return result


def label_wrong_steps(directory: Path, *, overwrite: bool) -> Path:
    """``graded.jsonl`` with the rule oracle's step labels, as ``labelled.jsonl``.

    Labels are only ever compared with; nothing is trained on them here.
    """
    from stepcredit.data import read_rollouts, rollout_to_json, write_rows_into
    from stepcredit.lab.oracles import label_steps

    graded, labelled = directory / "graded.jsonl", directory / "labelled.jsonl"
    manifest = Manifest("lab step labels", {}, inputs=[graded])
    with Output(labelled, manifest, overwrite=overwrite) as output:
        if not output.complete:
            rows = (replace(rollout, step_labels=label_steps(rollout)) for rollout in read_rollouts(graded))
            with output.replacing() as temporary:
                write_rows_into(temporary, labelled, map(rollout_to_json, rows))
    return labelled


def score_files(directory: Path) -> dict[str, Path]:
    """Scorer name to the file of its scores."""
    return {
        PRM_SCORES: directory / "scores.jsonl",
        REFERENCE_SCORES: directory / "reference-scores.jsonl",
    }


def score_rollouts(directory: Path, prm: Path, reference: Path, *, overwrite: bool) -> None:
    """Score ``graded.jsonl`` by the PRM, and by the reference's own log-probability."""
    files, graded = score_files(directory), directory / "graded.jsonl"
    score.run(score.Options(input=graded, prm=str(prm), out=files[PRM_SCORES], overwrite=overwrite))
    score.run(
        score.Options(
            input=graded,
            prm=str(reference),
            reference_free=True,
            beta=1.0,
            steps="newline",
            out=files[REFERENCE_SCORES],
            overwrite=overwrite,
        )
    )


def best_of_n(graded: Path, scores: dict[str, Path], ns: tuple[int, ...]) -> dict[str, Any]:
    """The accuracy table, as ``stepcredit eval best-of-n --aggregate min --json`` prints it."""
    named = tuple(f"{name}={path}" for name, path in scores.items())
    options = eval_best_of_n.Options(graded=graded, scores=named, n=ns, aggregate="min")
    result: Any = eval_best_of_n.run(options)
    content: dict[str, Any] = result.to_json()
    return content

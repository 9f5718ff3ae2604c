"""From the files of a demo's directory to its ``summary.json``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepcredit.data import read_rollouts, read_scores
from stepcredit.evaluation.labelled_steps import join_labels
from stepcredit.evaluation.localisation import first_error_classes, localise
from stepcredit.evaluation.score_columns import read_score_columns
from stepcredit.pipelines import lab_run
from stepcredit.pipelines.lab_run import POLICIES, PRM_SCORES, REFERENCE_SCORES
from stepcredit.reports.examples import Example, example_of
from stepcredit.reports.summary import (
    Accuracy,
    DemoSummary,
    Difference,
    Localisation,
    PolicySummary,
    StepRewardHistogram,
    TrainingSummary,
)
from stepcredit.runs import read_manifest
from stepcredit.stats import ProblemBootstrap

if TYPE_CHECKING:
    from stepcredit.pipelines.demo import Options
    from stepcredit.types import ResponseScore, Rollout

NS = (1, 4, 16, 64)
_NUM_EXAMPLES = 12
_FILES = {
    "policies/": "three small language models as ordinary checkpoints; mid is the PRM's start and reference",
    "train/prompts.jsonl": "training problems",
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


def summarise(out: Path, options: Options) -> DemoSummary:
    """Evaluate what lies in ``out``."""
    manifest = read_manifest(out / "prm") or {}
    return DemoSummary(
        seed=options.seed,
        policies={policy: _policy(out / f"test-{policy}") for policy in POLICIES},
        settings={
            "sizes": asdict(options.sizes),
            "sampling": asdict(options.sampling),
            "training": asdict(options.training),
        },
        training=_training(out),
        examples=tuple(_examples(out / "test-mid")),
        commands=_commands(out, options),
        versions=manifest.get("versions", {}),
        files=_FILES,
        git_commit=manifest.get("git_commit"),
        finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def headline(summary: DemoSummary) -> str:
    """The result in three sentences, with the numbers of this run."""
    mid = summary.policies["mid"]
    found = {(row.method, row.scorer, row.aggregate, row.n): row.accuracy for row in mid.results}
    largest = max(row.n for row in mid.results)
    shown = [n for n in (16, largest) if ("majority", None, None, n) in found]
    lines = [f"mid policy, {mid.num_problems} held-out problems, one response right in {found[_PASS]:.1%}"]
    lines += [
        f"  best of {n:>2}: majority vote {found['majority', None, None, n]:.1%}, "
        f"implicit PRM by its lowest step {found['best-of-n', PRM_SCORES, 'min', n]:.1%}"
        for n in dict.fromkeys(shown)
    ]
    if mid.localisation is not None and mid.localisation.auc is not None:
        lines.append(
            f"  first wrong step against right steps: AUC {mid.localisation.auc:.3f}, no step label used"
        )
    return "\n".join(lines)


_PASS = ("pass", None, None, 1)


def _policy(directory: Path) -> PolicySummary:
    scores = lab_run.score_files(directory)
    table = lab_run.best_of_n(directory / "graded.jsonl", scores, NS)
    rollouts = list(read_rollouts(directory / "labelled.jsonl"))
    return PolicySummary(
        num_problems=table["num_problems"],
        num_responses=table["num_responses"][0],
        distinct_mean=table["num_distinct"],
        results=tuple(_accuracies(table["results"])),
        differences=tuple(_differences(table["comparisons"])),
        localisation=_localisation(directory, rollouts),
    )


def _localisation(directory: Path, rollouts: Sequence[Rollout]) -> Localisation:
    """Step rewards against the rule oracle's labels, and the reference's log-probability beside them."""
    files = lab_run.score_files(directory)
    steps = join_labels(rollouts, read_score_columns(files[PRM_SCORES]))
    bootstrap = ProblemBootstrap(steps.num_clusters)
    found = localise(steps, bootstrap=bootstrap)
    of_reference = localise(
        join_labels(rollouts, read_score_columns(files[REFERENCE_SCORES])), bootstrap=bootstrap
    )
    right, first_wrong = first_error_classes(steps)
    edges = np.histogram_bin_edges(steps.rewards[right | first_wrong], bins=40)
    return Localisation(
        auc=found.auc.estimate,
        auc_low=found.auc.low,
        auc_high=found.auc.high,
        lowest_is_first_wrong=found.lowest_is_first_wrong.estimate,
        lowest_is_first_wrong_low=found.lowest_is_first_wrong.low,
        lowest_is_first_wrong_high=found.lowest_is_first_wrong.high,
        minimum_is_last=found.minimum_is_last.estimate,
        minimum_is_last_low=found.minimum_is_last.low,
        minimum_is_last_high=found.minimum_is_last.high,
        reference_auc=of_reference.auc.estimate,
        reference_auc_low=of_reference.auc.low,
        reference_auc_high=of_reference.auc.high,
        num_right_steps=found.num_right_steps,
        num_first_wrong_steps=found.num_first_wrong_steps,
        histogram=StepRewardHistogram(
            edges=tuple(edges.tolist()),
            right=tuple(np.histogram(steps.rewards[right], edges)[0].tolist()),
            first_wrong=tuple(np.histogram(steps.rewards[first_wrong], edges)[0].tolist()),
        ),
    )


def _differences(rows: Sequence[dict[str, Any]]) -> Iterator[Difference]:
    """The implicit PRM's lowest step against voting, at every n."""
    for row in rows:
        yield Difference(
            n=row["n"],
            first=row["first"],
            second=row["second"],
            difference=row["difference"],
            low=row["low"],
            high=row["high"],
        )


def _accuracies(rows: Sequence[dict[str, Any]]) -> Iterator[Accuracy]:
    """The rows that the report shows."""
    for row in rows:
        if row["method"] in ("pass", "majority", "best-of-n", "weighted-sigmoid"):
            yield Accuracy(
                method=row["method"],
                n=row["n"],
                accuracy=row["accuracy"],
                low=row["low"],
                high=row["high"],
                scorer=row["scorer"],
                aggregate=row["aggregate"],
            )


def _training(out: Path) -> TrainingSummary:
    graded = list(read_rollouts(out / "train" / "graded.jsonl"))
    return TrainingSummary(
        num_problems=len({rollout.prompt_id for rollout in graded}),
        num_responses=len(graded),
        correct_share=sum(rollout.correct is True for rollout in graded) / len(graded),
    )


def _examples(directory: Path) -> Iterator[Example]:
    """Wrong responses first, then right ones, from different problems, in the order of the file.

    Nothing is chosen by how well the PRM did: the first distinct response of each kind is taken.
    """
    scores: dict[str, ResponseScore] = {
        score.id: score for score in read_scores(lab_run.score_files(directory)[PRM_SCORES])
    }
    wrong: list[Rollout] = []
    right: list[Rollout] = []
    seen: set[str] = set()
    for rollout in read_rollouts(directory / "labelled.jsonl"):
        target = right if rollout.correct else wrong
        limit = _NUM_EXAMPLES // 4 if rollout.correct else _NUM_EXAMPLES - _NUM_EXAMPLES // 4
        if rollout.prompt_id not in seen and len(target) < limit:
            seen.add(rollout.prompt_id)
            target.append(rollout)
    for rollout in (*wrong, *right):
        yield example_of(rollout, scores[rollout.id])


def _commands(out: Path, options: Options) -> tuple[str, ...]:
    """The same by hand, on the mid policy."""
    draw, config, sizes = options.sampling, options.training, options.sizes
    mid = out / "policies" / "mid"
    answer = f"--grader exact --answer-pattern '{lab_run.ANSWER_PATTERN}'"
    tokens = f"--max-new-tokens {lab_run.MAX_NEW_TOKENS} --seed {options.seed}"
    return (
        f"stepcredit sample {out}/train/prompts.jsonl --model {mid} --num-samples {sizes.train_responses} "
        f"--top-p {draw.train_top_p} {tokens} --out rollouts.jsonl",
        f"stepcredit grade rollouts.jsonl {answer} --out graded.jsonl",
        f"stepcredit train graded.jsonl --dev {out}/dev/graded.jsonl --model {mid} "
        f"--objective {config.objective} --beta {config.beta} --learning-rate {config.learning_rate} "
        f"--batch-size {config.batch_size} --epochs {config.epochs} --steps {config.step_rule} "
        f"--seed {options.seed} --out prm",
        f"stepcredit score {out}/test-mid/graded.jsonl --prm prm --out scores.jsonl",
        f"stepcredit eval best-of-n {out}/test-mid/graded.jsonl --scores implicit-prm=scores.jsonl",
    )

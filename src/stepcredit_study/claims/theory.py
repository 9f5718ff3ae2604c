"""The propositions behind the method, and how near the learned values come to the exact ones.

Purpose: does the log-ratio of a prefix equal the soft value of its own reward (Proposition 3.1) and lie
between what soft and hard Monte-Carlo labels estimate (Proposition 3.2); and is that value, which the model
learned from final answers alone, near the true chance of a right answer?

Differs from the paper: it proves the propositions and tests neither. Here the first is computed exactly, for
trained models, over all continuations of a few tokens, and estimated by sampling whole continuations; the
second is exact over beta with r held fixed; and the lab knows each prefix's true value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepcredit.data import read_rollouts
from stepcredit.evaluation.score_columns import read_score_columns
from stepcredit.types import Rollout
from stepcredit_study.analyses import learned_values, propositions
from stepcredit_study.analyses.proposition_findings import (
    BETAS,
    CHECKED_MODELS,
    NUM_PREFIXES,
    NUM_SAMPLES,
    proposition_checks,
    proposition_plots,
    proposition_tables,
)
from stepcredit_study.analyses.propositions import ResponsePrefix
from stepcredit_study.claims.main import OBJECTIVES
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import TestBed
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.world import Responses, World
from stepcredit_study.pages.finding import (
    Cell,
    Check,
    Estimate,
    Finding,
    Table,
    format_estimates,
    intervals_plot,
)

HEADS = ("head-on-soft-labels", "head-on-hard-labels")
LABELS = ("soft-labels", "hard-labels")
VALUE_SOURCES = (*OBJECTIVES, *HEADS, *LABELS)
"""Models, and the labels that the heads learn from."""

CE_ORDERS_BETTER = "Implicit values (CE) order prefixes better than value heads on Monte-Carlo labels."

DEPTH = 3
NUM_TREES = 4
POSITIONS = ("1", "2", "3", "4", "answer")


@dataclass(frozen=True, slots=True)
class Files:
    """Models, and their scores of test responses.

    Attributes:
        labels: Kind of Monte-Carlo labels to the training responses that have them.
        scores: Method to its scores of the distinct ones.
    """

    models: Mapping[str, Path]
    labels: Mapping[str, Path]
    test: Responses
    scores: Mapping[str, Path]


def prepare(world: World) -> Files:
    """The four objectives, and value heads on Monte-Carlo labels of the same responses."""
    models = {name: world.train(name) for name in OBJECTIVES}
    soft = world.math_shepherd()
    hard = world.select(soft, step_labels="hard")
    models |= {
        name: world.train("math-shepherd", data) for name, data in zip(HEADS, (soft, hard), strict=True)
    }
    test = world.test_set()
    scores = {name: world.score(test.distinct, prm) for name, prm in models.items()}
    return Files(models=models, labels=dict(zip(LABELS, (soft, hard), strict=True)), test=test, scores=scores)


def measure(world: World, files: Files) -> Measurement:
    """Errors of both propositions, and distances of learned values from exact ones."""
    bed = TestBed(files.test, world.scale.n)
    checked = {name: files.models[name] for name in CHECKED_MODELS}
    prefixes = _prefixes(bed.distinct)
    numbers: dict[str, float] = {}
    for name, trees in propositions.trees(
        checked, Path(world.base), _openings(bed.distinct), depth=DEPTH
    ).items():
        numbers |= propositions.tree_numbers(name, trees, BETAS)
    weights = propositions.log_weights(
        checked,
        Path(world.base),
        prefixes,
        num_samples=max(NUM_SAMPLES),
        max_new_tokens=world.scale.train_sampling.max_new_tokens,
        seed=world.seed,
    )
    for name, log_weights in weights.items():
        numbers |= propositions.weight_numbers(name, log_weights, NUM_SAMPLES)
    tutor = world.tutor
    learned = {
        name: learned_values.of_labels(read_rollouts(labels), tutor) for name, labels in files.labels.items()
    }
    for name, scores in files.scores.items():
        learned[name] = learned_values.of_scores(bed.distinct, read_score_columns(scores), tutor)
    for name, values in learned.items():
        numbers |= values.numbers(f"values/{name}", POSITIONS)
    return numbers


def _prefixes(rollouts: Sequence[Rollout]) -> list[ResponsePrefix]:
    """Starts of one response to each of the first problems: of no step, one step, two, three, and again."""
    return [
        ResponsePrefix(prompt, "".join(lines[: min(number % 4, len(lines) - 1)]))
        for number, (prompt, lines) in enumerate(_first_responses(rollouts)[:NUM_PREFIXES])
    ]


def _openings(rollouts: Sequence[Rollout]) -> list[ResponsePrefix]:
    """Starts that end with an equals sign, so that the next token is a result, right or wrong."""
    openings = []
    for number, (prompt, lines) in enumerate(_first_responses(rollouts)[:NUM_TREES]):
        done = min(number % 4, len(lines) - 1)
        openings.append(ResponsePrefix(prompt, "".join(lines[:done]) + lines[done].partition("=")[0] + "="))
    return openings


def _first_responses(rollouts: Sequence[Rollout]) -> list[tuple[str, list[str]]]:
    """Each problem with the lines of its first response."""
    first: dict[str, list[str]] = {}
    for rollout in rollouts:
        assert isinstance(rollout.prompt, str)
        first.setdefault(rollout.prompt, rollout.response.splitlines(keepends=True))
    return list(first.items())


def conclude(seeds: Seeds, _: Scale) -> Finding:
    """Errors, bounds and closeness."""
    return Finding(
        name="theory",
        title="Is the log-ratio of a prefix its value?",
        purpose=(
            "Propositions 3.1 and 3.2 on trained models, and the learned values beside the lab's exact ones."
        ),
        differs=(
            "The paper proves the propositions; here they are computed on checkpoints, exactly over "
            f"all continuations of {DEPTH} tokens and by sampling whole continuations, and the true "
            "values are known."
        ),
        tables=(*proposition_tables(seeds), *_closeness_tables(seeds)),
        checks=(*proposition_checks(seeds), *_value_checks(seeds)),
        plots=(
            *proposition_plots(seeds),
            intervals_plot(
                "theory-values",
                "Rank correlation with the exact value within problems",
                "rank correlation",
                {
                    name: seeds.of(f"values/{name}/rank-correlation")
                    for name in VALUE_SOURCES
                    if f"values/{name}/rank-correlation" in seeds
                },
                reference=None,
                percent=False,
            ),
        ),
        notes=(
            "The exact value is the tutor's; the policy that continues a prefix imitates the tutor "
            "closely, but not perfectly. The rows soft-labels and hard-labels show how far "
            "Monte-Carlo labels from the policy's own completions are from the exact value, on "
            "training responses; models are measured on test responses.",
            "q of an empty response is always 0, so its sigmoid is 1/2 however hard the problem is; "
            "the order within a problem does not depend on this.",
        ),
    )


def _closeness_tables(seeds: Seeds) -> tuple[Table, ...]:
    def cells(name: str, *keys: str) -> tuple[Cell, ...]:
        return tuple(seeds.get(f"values/{name}/{key}") for key in keys)

    after = tuple(f"after step {p}" if p != "answer" else "with the answer" for p in POSITIONS)

    def table(title: str, by_position: str, caption: str, *, whole: str | None = None) -> Table:
        first = () if whole is None else (whole,)
        keys = (*first, *(f"{by_position}/{p}" for p in POSITIONS))
        return Table(
            title=title,
            columns=(*(key.replace("-", " ") for key in first), *after),
            rows=tuple((name, cells(name, *keys)) for name in VALUE_SOURCES),
            caption=caption,
            percent=False,
            digits=2,
        )

    return (
        table(
            "Rank correlation of learned and exact values within problems",
            "order",
            "Spearman's correlation over all prefixes of a problem; by position Goodman and Kruskal's gamma "
            "over prefixes of one problem with equally many steps.",
            whole="rank-correlation",
        ),
        table(
            "Learned values as probabilities",
            "calibration-error",
            "Expected calibration error against the exact values, in ten equal bins: of all prefixes, and of "
            "those at a position. Few prefixes tend to make it larger.",
            whole="calibration-error",
        ),
        table(
            "Distance between learned and exact values",
            "distance",
            "Mean absolute difference of the prefixes at a position.",
        ),
    )


def _value_checks(seeds: Seeds) -> list[Check]:
    def correlation(name: str) -> Estimate:
        return seeds.of(f"values/{name}/rank-correlation")

    def correlations(names: Sequence[str]) -> str:
        known = {name: correlation(name) for name in names if f"values/{name}/rank-correlation" in seeds}
        return format_estimates(known, percent=False, digits=2, sign=False)

    gains = {
        f"minus {head}": seeds.difference(
            "values/implicit-ce/rank-correlation", f"values/{head}/rank-correlation"
        )
        for head in HEADS
    }
    return [
        Check(
            claim="Every objective learns values that follow the exact ones within a problem (rank "
            "correlation above 0.3).",
            paper="not measured",
            here=correlations(OBJECTIVES),
            verdict=all_of([is_above(correlation(name), 0.3) for name in OBJECTIVES]),
            why="Training constrains only the value of whole responses; how the value is distributed "
            "over prefixes is left to the model (arXiv:2604.13197), and it need not be the "
            "probability of a right answer.",
        ),
        Check(
            claim=CE_ORDERS_BETTER,
            paper="argued from Proposition 3.2: hard labels overestimate, soft ones underestimate",
            here=format_estimates(gains, percent=False, digits=2),
            verdict=all_of([is_above(gain) for gain in gains.values()]),
            why=f"Rank correlations with the exact values: {correlations(LABELS)} on training responses; "
            f"{correlations(HEADS)} on test responses.",
        ),
        Check(
            claim="The sigmoid of the implicit value is a calibrated probability of a right answer (error "
            "below 0.05).",
            paper="not claimed",
            here=format_estimates(
                {name: seeds.of(f"values/{name}/calibration-error") for name in ("implicit-ce", *HEADS)},
                percent=False,
                digits=2,
                sign=False,
            ),
            verdict=is_below(seeds.of("values/implicit-ce/calibration-error"), 0.05),
            why="CE's mean distance from the exact value: "
            + ", ".join(
                f"{seeds.of(key).mean:.2f} {where}"
                for where, key in (
                    ("after one step", "values/implicit-ce/distance/1"),
                    ("with the answer", "values/implicit-ce/distance/answer"),
                )
                if key in seeds
            )
            + ".",
        ),
    ]


EXPERIMENT = Experiment("theory", prepare, measure, conclude, lab_only=True)

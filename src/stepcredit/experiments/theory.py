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

import numpy as np

from stepcredit.data import read_rollouts
from stepcredit.evaluation.score_columns import read_score_columns
from stepcredit.experiments.main import OBJECTIVES
from stepcredit.lab.tutor import tutor_named
from stepcredit.reports.finding import Cell, Check, Estimate, Finding, Plot, Series, Table, Verdict
from stepcredit.reproduction import learned_values, propositions
from stepcredit.reproduction.experiment import Experiment
from stepcredit.reproduction.measuring import TestBed
from stepcredit.reproduction.propositions import ResponsePrefix
from stepcredit.reproduction.scale import Scale
from stepcredit.reproduction.seeds import Measurement, Seeds, all_of, is_above, is_below, told
from stepcredit.reproduction.world import LAB, Responses, World
from stepcredit.types import Rollout

CHECKED = ("implicit-ce", "implicit-dpo")
"""Models on which the propositions are checked."""

HEADS = ("head-on-soft-labels", "head-on-hard-labels")
LABELS = "soft-labels"
VALUED = (*OBJECTIVES, *HEADS, LABELS)
DEPTH = 3
NUM_TREES = 4
BETAS = tuple(4.0**exponent for exponent in range(-4, 5))
NUM_PREFIXES = 16
NUM_SAMPLES = (16, 64, 256, 1024)
POSITIONS = ("1", "2", "3", "4", "answer")
FLOAT_ERROR = 1e-9
"""In nats; values of a few nats summed over ten thousand continuations in float64 keep twelve digits."""


@dataclass(frozen=True, slots=True)
class Files:
    """Models, and their scores of test responses.

    Attributes:
        models: Method to its model.
        labels: Training responses with soft Monte-Carlo labels.
        test: The base's responses.
        scores: Method to its scores of the distinct ones.
    """

    models: Mapping[str, Path]
    labels: Path
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
    return Files(models=models, labels=soft, test=test, scores=scores)


def measure(world: World, files: Files) -> Measurement:
    """Errors of both propositions, and distances of learned values from exact ones."""
    bed = TestBed(files.test, world.scale.n)
    checked = {name: files.models[name] for name in CHECKED}
    prefixes = _prefixes(bed.distinct)
    numbers: dict[str, float] = {}
    for name, found in propositions.trees(
        checked, Path(world.base), _openings(bed.distinct), depth=DEPTH
    ).items():
        numbers |= propositions.tree_numbers(name, found, BETAS)
    weights = propositions.log_weights(
        checked,
        Path(world.base),
        prefixes,
        num_samples=max(NUM_SAMPLES),
        max_new_tokens=world.scale.train_sampling.max_new_tokens,
        seed=world.seed,
    )
    for name, each in weights.items():
        numbers |= propositions.weight_numbers(name, each, NUM_SAMPLES)
    tutor = tutor_named(world.scale.generators[world.scale.base].removeprefix(LAB))
    learned = {LABELS: learned_values.of_labels(read_rollouts(files.labels), tutor)}
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
    found = []
    for number, (prompt, lines) in enumerate(_first_responses(rollouts)[:NUM_TREES]):
        done = min(number % 4, len(lines) - 1)
        found.append(ResponsePrefix(prompt, "".join(lines[:done]) + lines[done].partition("=")[0] + "="))
    return found


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
            "The paper proves the propositions; here they are computed on checkpoints, exactly over all "
            f"continuations of {DEPTH} tokens and by sampling whole ones, and the truth is known."
        ),
        tables=(_sampled(seeds), _bounds(seeds), *_closeness_tables(seeds)),
        checks=(*_proposition_checks(seeds), *_value_checks(seeds)),
        plots=tuple(_plots(seeds)),
        notes=(
            "The exact value is the tutor's: the policy that continues a prefix imitates it closely, not "
            "perfectly. How far soft Monte-Carlo labels of the policy's own completions are from it is the "
            "row soft-labels, on training responses.",
            "q of an empty response is 0 whatever the problem, so the sigmoid of q is no probability before "
            "the answer is there; order within a problem is what a value can be asked for.",
        ),
    )


def _slope(seeds: Seeds, name: str) -> Estimate:
    def slope(numbers: Measurement) -> float:
        errors = [numbers[f"sampled/{name}/relative/{size}"] for size in NUM_SAMPLES]
        return float(np.polyfit(np.log(NUM_SAMPLES), np.log(errors), 1)[0])

    return seeds.derived(slope)


def _sampled(seeds: Seeds) -> Table:
    return Table(
        title="Proposition 3.1 by sampling: error of log mean exp(r / beta) over K continuations",
        columns=(
            *(f"K = {size}" for size in NUM_SAMPLES),
            "slope",
            "mean error",
            "effective share",
            "largest weight",
        ),
        rows=tuple(
            (
                name,
                (
                    *(seeds.of(f"sampled/{name}/{size}") for size in NUM_SAMPLES),
                    _slope(seeds, name),
                    *(seeds.of(f"sampled/{name}/{what}") for what in ("mean", "effective", "largest")),
                ),
            )
            for name in CHECKED
        ),
        caption=(
            f"Root mean square in nats of q / beta, over {NUM_PREFIXES} prefixes. Slope: logarithm of the "
            "relative error of the mean of exp(r / beta) over log K. Mean error in nats, effective share of "
            "the samples and the heaviest one's share of the estimate: at the largest K."
        ),
        percent=False,
        digits=3,
    )


def _bounds(seeds: Seeds) -> Table:
    return Table(
        title="Proposition 3.2: place of q_t between q_s (0) and q_h (1)",
        columns=tuple(f"beta = {beta:.3g}" for beta in BETAS),
        rows=tuple((name, tuple(seeds.of(f"bounds/{name}/{beta:g}") for beta in BETAS)) for name in CHECKED),
        caption="r held fixed at the trained beta; mean over prefixes.",
        percent=False,
        digits=3,
    )


def _closeness_tables(seeds: Seeds) -> tuple[Table, Table]:
    def cells(name: str, *keys: str) -> tuple[Cell, ...]:
        return tuple(
            seeds.of(f"values/{name}/{key}") if f"values/{name}/{key}" in seeds else None for key in keys
        )

    after = tuple(f"after step {p}" if p != "answer" else "with the answer" for p in POSITIONS)

    def table(title: str, whole: str, by_position: str, caption: str) -> Table:
        keys = (whole, *(f"{by_position}/{p}" for p in POSITIONS))
        return Table(
            title=title,
            columns=(whole.replace("-", " "), *after),
            rows=tuple((name, cells(name, *keys)) for name in VALUED),
            caption=caption,
            percent=False,
            digits=2,
        )

    return (
        table(
            "Order of learned against exact values within problems",
            "rank-correlation",
            "order",
            "Spearman's correlation over all prefixes of a problem; by position Goodman and Kruskal's gamma "
            "over prefixes of one problem with equally many steps.",
        ),
        table(
            "Learned values as probabilities",
            "calibration-error",
            "distance",
            "Expected calibration error of all prefixes; by position the mean distance from the exact value.",
        ),
    )


def _proposition_checks(seeds: Seeds) -> list[Check]:
    errors = [seeds.of(f"exact/{name}/error") for name in CHECKED]
    outside = [seeds.of(f"bounds/{name}/outside") for name in CHECKED]
    slopes, largest = [_slope(seeds, name) for name in CHECKED], max(NUM_SAMPLES)
    most = max(max(each.values) for each in errors)
    furthest = max(max(each.values) for each in outside)
    ends = [seeds.of(f"bounds/{name}/{beta:g}") for name in CHECKED for beta in (BETAS[0], BETAS[-1])]
    return [
        Check(
            claim="The log-ratio of a prefix is beta log E exp(r / beta), to rounding (Proposition 3.1).",
            paper="proved",
            here=f"largest error {most:.1e} nats over "
            f"{seeds.of(f'exact/{CHECKED[0]}/continuations').mean:,.0f} continuations a model and seed",
            verdict=_exactly(most),
            why="It holds for any two models whose probabilities of continuations sum to 1, trained or not.",
        ),
        Check(
            claim="The mean of exp(r / beta) over K sampled continuations is exp(q / beta) with a relative "
            "error that falls like 1 / sqrt(K) (slope over log K within 0.15 of -0.5).",
            paper="proved",
            here=", ".join(
                f"{name} slope {told(slope, percent=False, digits=2)}, error of q / beta at K = {largest} "
                f"{told(seeds.of(f'sampled/{name}/{largest}'), percent=False, digits=2)} nats"
                for name, slope in zip(CHECKED, slopes, strict=True)
            ),
            verdict=all_of([v for s in slopes for v in (is_above(s, -0.65), is_below(s, -0.35))]),
            why="The weights exp((r - q) / beta) are uneven: "
            + "; ".join(
                f"{name}: {told(seeds.of(f'sampled/{name}/effective'))}% of {largest} samples are "
                f"effective, the heaviest has {told(seeds.of(f'sampled/{name}/largest'))}% of the estimate"
                for name in CHECKED
            ),
        ),
        Check(
            claim="q_s <= q_t <= q_h, near q_h (within 0.1 of the range) for the smallest beta and near q_s "
            "for the largest (Proposition 3.2).",
            paper="proved",
            here=f"furthest outside {furthest:.1e}; place at the ends "
            + ", ".join(f"{each.mean:.3f}" for each in ends),
            verdict=all_of(
                [
                    _exactly(furthest),
                    *(is_above(each, 0.9) for each in ends[0::2]),
                    *(is_below(each, 0.1) for each in ends[1::2]),
                ]
            ),
            why="q_t is a soft maximum of r: beta log E exp(r / beta) is the mean for a large beta and the "
            "maximum for a small one.",
        ),
    ]


def _exactly(error: float) -> Verdict:
    return "holds" if error < FLOAT_ERROR else "does not hold"


def _value_checks(seeds: Seeds) -> list[Check]:
    def correlation(name: str) -> Estimate:
        return seeds.of(f"values/{name}/rank-correlation")

    soft, hard = HEADS
    gains = {
        head: seeds.difference("values/implicit-ce/rank-correlation", f"values/{head}/rank-correlation")
        for head in HEADS
    }
    return [
        Check(
            claim="Every objective learns values that follow the exact ones within a problem (rank "
            "correlation above 0.3).",
            paper="not measured",
            here=", ".join(
                f"{name} {told(correlation(name), percent=False, digits=2)}" for name in OBJECTIVES
            ),
            verdict=all_of([is_above(correlation(name), 0.3) for name in OBJECTIVES]),
            why="Outcomes fix the value of whole responses; by Proposition 3.1 those of prefixes follow.",
        ),
        Check(
            claim="Implicit values (CE) order prefixes better than value heads on Monte-Carlo labels.",
            paper="argued from Proposition 3.2: hard labels overrate, soft ones underrate",
            here=", ".join(
                f"less {head} {told(gain, percent=False, digits=2, sign=True)}"
                for head, gain in gains.items()
            ),
            verdict=all_of([is_above(gain) for gain in gains.values()]),
            why="The labels themselves follow the exact values with a rank correlation of "
            f"{told(seeds.of('values/soft-labels/rank-correlation'), percent=False, digits=2)}; a head "
            f"learns {told(correlation(soft), percent=False, digits=2)} of that on new problems.",
        ),
        Check(
            claim="The sigmoid of the implicit value is a calibrated probability of a right answer (error "
            "below 0.05).",
            paper="not claimed",
            here=", ".join(
                f"{name} {told(seeds.of(f'values/{name}/calibration-error'), percent=False, digits=2)}"
                for name in ("implicit-ce", soft, hard)
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


def _plots(seeds: Seeds) -> list[Plot]:
    return [
        Plot(
            name="theory-sampling",
            title="Error of a sampled value",
            kind="curves",
            x_label="continuations",
            y_label="error (nats)",
            x_log2=True,
            percent=False,
            series=tuple(
                Series(
                    name=name,
                    x=NUM_SAMPLES,
                    y=tuple(seeds.of(f"sampled/{name}/{size}") for size in NUM_SAMPLES),
                )
                for name in CHECKED
            ),
        ),
        Plot(
            name="theory-bounds",
            title="Place of q_t between its bounds",
            kind="curves",
            x_label="beta",
            y_label="0 = mean of r, 1 = maximum of r",
            x_log2=True,
            percent=False,
            series=tuple(
                Series(name=name, x=BETAS, y=tuple(seeds.of(f"bounds/{name}/{beta:g}") for beta in BETAS))
                for name in CHECKED
            ),
        ),
        Plot(
            name="theory-values",
            title="Rank correlation with the exact value within problems",
            kind="intervals",
            x_label="rank correlation",
            percent=False,
            series=tuple(
                Series(name=name, y=(seeds.of(f"values/{name}/rank-correlation"),)) for name in VALUED
            ),
        ),
    ]


EXPERIMENT = Experiment(
    name="theory",
    title="Propositions 3.1 and 3.2 on checkpoints, and learned against exact values",
    prepare=prepare,
    measure=measure,
    conclude=conclude,
    lab_only=True,
)

"""Without the reference: training with or without it, scoring with or without it.

Purpose: is the reference needed at all? Without it a reward is the model's own log-probability times beta,
half as expensive to train and to score.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import TestBed
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.variants import (
    DPO_AND_CE,
    MARGIN,
    Scorer,
    Variants,
    accuracy_table,
    measure_variants,
    score_variants,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Cell, Check, Finding, Plot, Table, format_estimate, intervals_plot

WITH, WITHOUT = "with", "without"
COMBINATIONS = ((WITH, WITH), (WITH, WITHOUT), (WITHOUT, WITH), (WITHOUT, WITHOUT))
"""Training and scoring, with or without the reference."""
UNTRAINED = "untrained log-probability"

PAPER: Mapping[tuple[str, str], str] = {
    (WITH, WITH): "50.4",
    (WITH, WITHOUT): "50.6",
    (WITHOUT, WITH): "50.2",
    (WITHOUT, WITHOUT): "50.3",
}
"""DPO's averages over generators and n, in per cent."""
PAPER_UNTRAINED = "45.8"


def variant(method: str, training: str, scoring: str) -> str:
    """Names a combination."""
    return f"{method}, trained {training}, scored {scoring}"


def prepare(world: World) -> Variants:
    """Models trained with and without the reference, each scored with and without it."""
    scorers: dict[str, Path | Scorer] = {UNTRAINED: world.reference_log_probability}
    for method in DPO_AND_CE:
        models: dict[str, Path] = {
            WITH: world.train(method),
            WITHOUT: world.train(method, reference_free=True),
        }
        for training, model in models.items():
            # A model that was trained without a reference does not name one.
            reference = None if training == WITH else str(world.base)
            scorers[variant(method, training, WITH)] = partial(world.score, prm=model, reference=reference)
            scorers[variant(method, training, WITHOUT)] = partial(world.score, prm=model, reference_free=True)
    return score_variants(world, scorers)


def measure(world: World, variants: Variants) -> Measurement:
    """Best-of-n of every combination; whether the reference itself knows right responses."""
    bed = TestBed(variants.test[world.scale.base], world.scale.n)
    scores = variants.test_scores[UNTRAINED][world.scale.base]
    return measure_variants(world, variants) | {f"{UNTRAINED}/AUC": bed.outcome_auc(scores)}


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """The four combinations beside the untrained model."""
    return Finding(
        name="reference-free",
        title="Is the reference needed?",
        purpose="Training and scoring with and without the reference (finding 8).",
        differs=(
            f"{scale.setting}; the score of a response is chosen on development problems for each "
            "combination; training without the reference keeps the method's settings."
        ),
        tables=(_table(seeds, scale),),
        checks=tuple(check for method in DPO_AND_CE for check in _checks(seeds, method)),
        plots=(_plot(seeds),),
    )


def _table(seeds: Seeds, scale: Scale) -> Table:
    rows: dict[str, tuple[str, tuple[Cell, ...]]] = {
        f"{label}, trained {training}, scored {scoring}": (
            variant(method, training, scoring),
            (PAPER[training, scoring] if method == "implicit-dpo" else None,),
        )
        for method, label in DPO_AND_CE.items()
        for training, scoring in COMBINATIONS
    }
    rows[UNTRAINED] = UNTRAINED, (PAPER_UNTRAINED,)
    return accuracy_table(seeds, scale, rows, ("paper's average",), of=", with and without the reference")


def _checks(seeds: Seeds, method: str) -> list[Check]:
    label, published = DPO_AND_CE[method], method == "implicit-dpo"
    usual = variant(method, WITH, WITH)
    lost = {
        combination: seeds.difference(usual, variant(method, *combination))
        for combination in COMBINATIONS
        if combination != (WITH, WITH)
    }
    untrained = seeds.difference(UNTRAINED, "pass@1")
    gains = {
        combination: seeds.difference(variant(method, *combination), UNTRAINED)
        for combination in COMBINATIONS
    }
    return [
        *(
            Check(
                claim=(
                    f"{label} trained {training} and scored {scoring} the reference loses less than "
                    f"{100 * MARGIN:.0f} points against training and scoring with it."
                ),
                paper=f"50.4 to {PAPER[training, scoring]}" if published else "not published",
                here=f"loses {format_estimate(loss, sign=True)}",
                verdict=is_below(loss, MARGIN),
                why=_why(seeds, training, scoring),
            )
            for (training, scoring), loss in lost.items()
        ),
        Check(
            claim=f"Each of {label}'s four combinations picks better than the untrained log-probability.",
            paper="50.2 to 50.6 against 45.8" if published else "not published",
            here=", ".join(
                f"{format_estimate(gain, sign=True)} ({training}, {scoring})"
                for (training, scoring), gain in gains.items()
            ),
            verdict=all_of([is_above(gain) for gain in gains.values()]),
            why=f"The untrained log-probability adds {format_estimate(untrained, sign=True)} "
            "to a single response.",
        ),
    ]


def _why(seeds: Seeds, training: str, scoring: str) -> str:
    """What leaving the reference out puts in its place."""
    parts = []
    if training == WITHOUT:
        parts.append(
            "The reward in training is then beta log pi itself, so two responses also differ by "
            "their log-probability under the base model."
        )
    if scoring == WITHOUT:
        parts.append(
            "In scoring what the reference gives a response is added to the log-ratio; it separates right "
            f"from wrong responses with AUC {format_estimate(seeds.of(f'{UNTRAINED}/AUC'))} (50 is chance)."
        )
    return " ".join(parts)


def _plot(seeds: Seeds) -> Plot:
    accuracies = {
        f"{label}, trained {training}, scored {scoring}": seeds.of(variant(method, training, scoring))
        for method, label in DPO_AND_CE.items()
        for training, scoring in COMBINATIONS
    }
    return intervals_plot(
        "reference-free",
        "Accuracy with and without the reference, mean over n",
        "Accuracy",
        accuracies | {UNTRAINED: seeds.of(UNTRAINED)},
        reference=seeds.of("pass@1").mean,
    )


EXPERIMENT = Experiment("reference-free", prepare, measure, conclude)

"""Step labels on top: a second stage of training on Monte-Carlo labels, and on true ones.

Purpose: does an implicit PRM that learnt from final answers gain from step labels, and could it from
perfect ones?
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.measuring import TestBed
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, is_below
from stepcredit_study.frame.variants import (
    DPO_AND_CE,
    MARGIN,
    Variants,
    accuracy_table,
    measure_variants,
    score_variants,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Cell, Check, Finding, Table, format_estimate, intervals_plot

MONTE_CARLO, TRUE = "Monte-Carlo labels", "true labels"
CONTROL = "final answers again"
"""The same further training without any step label."""

PAPER = {("implicit-dpo", ""): "50.4", ("implicit-dpo", MONTE_CARLO): "50.1"}
"""Averages over generators and n, in per cent."""


def variant(method: str, labels: str = "") -> str:
    """Names the model of a method, with a second stage on some labels or without."""
    return f"{method}, then {labels}" if labels else method


def prepare(world: World) -> Variants:
    """Both objectives alone, and before a second stage on answers again or on each kind of step labels."""
    labelled = {MONTE_CARLO: world.math_shepherd()}
    if world.scale.is_lab:
        labelled[TRUE] = world.true_labels()
    second = world.scale.config("second-stage")
    again = {"learning_rate": second.learning_rate, "epochs": second.epochs}
    models: dict[str, Path] = {}
    for method in DPO_AND_CE:
        models[method] = world.train(method)
        models |= second_stages(world, method, models[method], world.train_set(), labelled, again=again)
    return score_variants(world, models)


def second_stages(
    world: World,
    method: str,
    first: Path,
    answers: Path,
    labelled: Mapping[str, Path],
    *,
    again: Mapping[str, Any],
    **changes: Any,
) -> dict[str, Path]:
    """A model trained further on final answers, and on each kind of step labels.

    Args:
        method: Objective of the first stage.
        answers: What it learned from.
        labelled: Kind of step labels to data with them.
        again: Settings of further training on final answers that differ from the method's.
        changes: Settings of training on step labels that differ from those of second stages.
    """
    # The reward keeps its scale, so that the second stage goes on where the first one ended.
    changes = {"beta": world.scale.config(method).beta, **changes}
    models = {variant(method, CONTROL): world.train(method, answers, start_from=first, **again)}
    for labels, data in labelled.items():
        models[variant(method, labels)] = world.train("second-stage", data, start_from=first, **changes)
    return models


def measure(world: World, variants: Variants) -> Measurement:
    """Best-of-n of every model; in the lab, how well it finds first wrong steps."""
    numbers = measure_variants(world, variants)
    if world.scale.is_lab:
        bed = TestBed(variants.test[world.scale.base], world.scale.n)
        for name, scores in variants.test_scores.items():
            numbers[f"{name}/step AUC"] = bed.step_auc(scores[world.scale.base])
    return numbers


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """What a second stage adds."""
    return Finding(
        name="step-labels",
        title="Do additional step labels help?",
        purpose="A second stage of training on step labels (finding 7).",
        differs=(
            f"{scale.setting}; a control with as much further training on final answers; also a "
            "second stage on true labels, which only the lab has."
        ),
        tables=(_table(seeds, scale),),
        checks=tuple(
            check_of(seeds, method, labels)
            for method in DPO_AND_CE
            for labels in (MONTE_CARLO, TRUE)
            if variant(method, labels) in seeds
        ),
        plots=(
            intervals_plot(
                "step-labels",
                "What a second stage adds, mean over n",
                "Accuracy minus that without it",
                {
                    f"{label}, {labels}": seeds.difference(variant(method, labels), method)
                    for method, label in DPO_AND_CE.items()
                    for labels in (CONTROL, MONTE_CARLO, TRUE)
                    if variant(method, labels) in seeds
                },
            ),
        ),
    )


def _table(seeds: Seeds, scale: Scale) -> Table:
    rows: dict[str, tuple[str, tuple[Cell, ...]]] = {}
    for method, label in DPO_AND_CE.items():
        for labels in ("", CONTROL, MONTE_CARLO, TRUE):
            name = variant(method, labels)
            if name not in seeds:
                continue
            gain = seeds.difference(name, method) if labels else None
            row = f"{label}, then {labels}" if labels else f"{label} alone"
            rows[row] = name, (gain, seeds.get(f"{name}/step AUC"), PAPER.get((method, labels)))
    return accuracy_table(
        seeds,
        scale,
        rows,
        ("gain", "first wrong step AUC", "paper's average"),
        caption=" The AUC is that of the step reward, first wrong steps against right steps before any "
        "error.",
    )


def check_of(seeds: Seeds, method: str, labels: str) -> Check:
    """What labels add for a method: more than as much further training without them?"""
    first, control, second = method, variant(method, CONTROL), variant(method, labels)
    gain = seeds.difference(second, control)
    has_truth = f"{second}/step AUC" in seeds
    step_auc = seeds.difference(f"{second}/step AUC", f"{first}/step AUC") if has_truth else None
    return Check(
        claim=(
            f"A second stage on {labels} does not help {DPO_AND_CE[method]}: it adds less than "
            f"{100 * MARGIN:.0f} points to a second stage on {CONTROL}."
        ),
        paper="50.4 to 50.1 (against the first stage)" if (method, labels) in PAPER else "not published",
        here=f"{format_estimate(gain, sign=True)}; against the first stage "
        f"{format_estimate(seeds.difference(second, first), sign=True)}",
        verdict=is_below(gain, MARGIN),
        why=f"A second stage on {CONTROL} adds "
        f"{format_estimate(seeds.difference(control, first), sign=True)}."
        + (
            ""
            if step_auc is None
            else " Change in the AUC of first wrong steps due to the labels: "
            f"{format_estimate(step_auc, sign=True)}."
        ),
    )


EXPERIMENT = Experiment("step-labels", prepare, measure, conclude)

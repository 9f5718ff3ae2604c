"""What the checks of Propositions 3.1 and 3.2 came to: tables, claims and plots of the measurements.

What is measured, and how, is in :mod:`stepcredit_study.analyses.propositions`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.pages.finding import Check, Estimate, Plot, Table, Verdict, curves_plot, format_estimate

CHECKED_MODELS = ("implicit-ce", "implicit-dpo")
"""Models on which the propositions are checked."""

BETAS = tuple(4.0**exponent for exponent in range(-4, 5))
NUM_PREFIXES = 16
NUM_SAMPLES = (16, 64, 256, 1024)
FLOAT_ERROR = 1e-9
"""In nats times beta; values of a few nats summed over ten thousand continuations keep twelve digits."""


def proposition_tables(seeds: Seeds) -> tuple[Table, Table]:
    """Errors of sampled values, and places between the bounds."""
    return _sampled(seeds), _bounds(seeds)


def proposition_plots(seeds: Seeds) -> tuple[Plot, Plot]:
    """The same as curves."""

    def curves(key: str, places: Sequence[float]) -> dict[str, dict[float, Estimate]]:
        return {
            model: {place: seeds.of(f"{key}/{model}/{place:g}") for place in places}
            for model in CHECKED_MODELS
        }

    return (
        curves_plot(
            "theory-sampling",
            "Error of a sampled value",
            ("continuations", "error (nats)"),
            curves("sampled", NUM_SAMPLES),
            percent=False,
        ),
        curves_plot(
            "theory-bounds",
            "Position of q_t between its bounds",
            ("beta", "0 = mean of r, 1 = maximum of r"),
            curves("bounds", BETAS),
            percent=False,
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
            for name in CHECKED_MODELS
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
        title="Proposition 3.2: position of q_t between q_s (0) and q_h (1)",
        columns=tuple(f"beta = {beta:.3g}" for beta in BETAS),
        rows=tuple(
            (name, tuple(seeds.of(f"bounds/{name}/{beta:g}") for beta in BETAS)) for name in CHECKED_MODELS
        ),
        caption="r held fixed at the trained beta; mean over prefixes.",
        percent=False,
        digits=3,
    )


def proposition_checks(seeds: Seeds) -> list[Check]:
    """Whether both propositions hold on trained models, to rounding or as far as samples show."""
    errors = [seeds.of(f"exact/{name}/error") for name in CHECKED_MODELS]
    outside = [seeds.of(f"bounds/{name}/outside") for name in CHECKED_MODELS]
    continuations = seeds.of(f"exact/{CHECKED_MODELS[0]}/continuations")
    slopes, largest = [_slope(seeds, name) for name in CHECKED_MODELS], max(NUM_SAMPLES)
    most = max(max(estimate.values) for estimate in errors)
    furthest = max(max(estimate.values) for estimate in outside)
    ends = [seeds.of(f"bounds/{name}/{beta:g}") for name in CHECKED_MODELS for beta in (BETAS[0], BETAS[-1])]
    return [
        Check(
            claim="The log-ratio of a prefix is beta log E exp(r / beta), to rounding (Proposition 3.1).",
            paper="proved",
            here=f"largest error {most:.1e} nats times beta over "
            f"{continuations.mean:,.0f} continuations per model and seed",
            verdict=_exactly(most),
            why="It holds for any two models whose probabilities of continuations sum to 1, trained or not.",
        ),
        Check(
            claim="The mean of exp(r / beta) over K sampled continuations is exp(q / beta) with a relative "
            "error that falls like 1 / sqrt(K) (slope over log K within 0.15 of -0.5).",
            paper="proved",
            here=", ".join(
                f"{name} slope {format_estimate(slope, percent=False, digits=2)}, error of q / beta "
                f"at K = {largest} "
                f"{format_estimate(seeds.of(f'sampled/{name}/{largest}'), percent=False, digits=2)} nats"
                for name, slope in zip(CHECKED_MODELS, slopes, strict=True)
            ),
            verdict=all_of([v for s in slopes for v in (is_above(s, -0.65), is_below(s, -0.35))]),
            why="How evenly the weights exp((r - q) / beta) are spread: "
            + "; ".join(
                f"{name}: {format_estimate(seeds.of(f'sampled/{name}/effective'))}% of {largest} samples "
                "are effective, the heaviest has "
                f"{format_estimate(seeds.of(f'sampled/{name}/largest'))}% of the estimate"
                for name in CHECKED_MODELS
            ),
        ),
        Check(
            claim="q_s <= q_t <= q_h, near q_h (within 0.1 of the range) for the smallest beta and near q_s "
            "for the largest (Proposition 3.2).",
            paper="proved",
            here=f"furthest outside {furthest:.1e}; place at the ends "
            + ", ".join(f"{end.mean:.3f}" for end in ends),
            verdict=all_of(
                [
                    _exactly(furthest),
                    *(is_above(end, 0.9) for end in ends[0::2]),
                    *(is_below(end, 0.1) for end in ends[1::2]),
                ]
            ),
            why="q_t is a soft maximum of r: beta log E exp(r / beta) is the mean for a large beta and the "
            "maximum for a small one.",
        ),
    ]


def _exactly(error: float) -> Verdict:
    return "holds" if error < FLOAT_ERROR else "does not hold"

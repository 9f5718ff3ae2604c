"""The demo's report: from its summary and the training log to one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stepcredit.reports.choosing import (
    LOG_PROBABILITY,
    LOWEST_STEP,
    MAJORITY,
    accuracy_curves,
    choosers_legend,
    difference_of,
    policy_table,
)
from stepcredit.reports.heatmap import heat_map
from stepcredit.reports.page import ABSENT, duration, interval, percent, plain, points, render_page
from stepcredit.reports.plots import Axis, Counts, Mark, histogram, interval_plot
from stepcredit.reports.plots import Interval as Estimate
from stepcredit.reports.summary import DemoSummary, PolicyFindings
from stepcredit.reports.training_log import read_log, training_plots
from stepcredit.stats import Interval

_HEADLINE_N = 16
_POLICY_ORDER = ("mid", "weak", "strong")


@dataclass(frozen=True, slots=True)
class Figure:
    """A key figure at the top: the number, its interval, and what it is."""

    value: str
    interval: str
    meaning: str


def render_demo(summary: DemoSummary, directory: str | Path) -> str:
    """The demo's report.

    Args:
        directory: Holds the training log that the summary names.

    Returns:
        A complete HTML document.

    Raises:
        DataError: The training log is malformed.
    """
    names = [name for name in _POLICY_ORDER if name in summary.policies]
    names += [name for name in summary.policies if name not in names]
    policies = {name: summary.policies[name] for name in names}
    log = read_log(Path(directory) / summary.training.log)
    main = policies[names[0]]
    sections = [("answers", "Answers"), ("steps", "Steps"), ("examples", "Examples")]
    return render_page(
        "demo.html",
        title="stepcredit demo report",
        kind="demo report",
        sections=[*sections, ("training", "Training"), ("made", "How it was made")],
        summary=summary,
        headline=headline(main),
        main=main,
        main_name=names[0],
        figures=list(_figures(main)),
        tables=[policy_table(name, policy) for name, policy in policies.items()],
        curves=accuracy_curves(policies),
        curves_legend=choosers_legend(),
        localisation_plots=_localisation_plots(policies),
        heat_map=heat_map(summary.examples),
        training_plots=[] if log is None else training_plots(log),
        settings=_settings(summary.settings),
        run_facts=[
            ("seed", str(summary.seed)),
            ("finished (UTC)", summary.finished.replace("T", " ").removesuffix("Z")),
            ("commit", (summary.git_commit or ABSENT)[:12]),
        ],
        times=_times(summary.seconds),
    )


def headline(policy: PolicyFindings) -> str:
    """The finding in one sentence."""
    n = _headline_n(policy)
    ours, vote = (one.cells(policy.results)[n].accuracy for one in (LOWEST_STEP, MAJORITY))
    return (
        f"Picking among {n} responses by their lowest step reward gets {percent(ours)} "
        f"of the problems right; majority voting gets {percent(vote)}."
    )


def _headline_n(policy: PolicyFindings) -> int:
    sizes = set(LOWEST_STEP.cells(policy.results)) & set(MAJORITY.cells(policy.results))
    return _HEADLINE_N if _HEADLINE_N in sizes else max(sizes)


def _figures(policy: PolicyFindings) -> Iterator[Figure]:
    n = _headline_n(policy)
    difference = difference_of(policy.comparisons, n, LOWEST_STEP, MAJORITY)
    if difference is not None:
        yield Figure(
            f"{points(difference.estimate)} pts",
            interval(difference.low, difference.high),
            f"best of {n} by the lowest step minus majority vote, on the same problems",
        )
    cells = LOWEST_STEP.cells(policy.results)
    if max(cells) > n:
        largest = cells[max(cells)]
        yield Figure(
            percent(largest.accuracy),
            interval(largest.low, largest.high),
            f"right with the best of {largest.n} by the lowest step",
        )
    auc, lowest = policy.steps.auc, policy.steps.lowest_is_first_wrong
    yield Figure(
        plain(auc.estimate, 4),
        f"{plain(auc.low, 4)} to {plain(auc.high, 4)}",
        "AUC of step rewards: first wrong steps against right steps before them",
    )
    yield Figure(
        percent(lowest.estimate),
        interval(lowest.low, lowest.high),
        "of responses with a wrong step have their lowest reward at the first wrong step",
    )


def _localisation_plots(policies: Mapping[str, PolicyFindings]) -> list[Markup]:
    aucs, shares = [], []
    last = Mark("brown", "square")
    for name, policy in policies.items():
        aucs += [
            _row(f"{name}: implicit PRM", policy.steps.auc),
            _row(f"{name}: reference log-prob.", policy.reference_steps.auc, LOG_PROBABILITY.mark),
        ]
        shares += [
            _row(f"{name}: lowest is first wrong", policy.steps.lowest_is_first_wrong),
            _row(f"{name}: lowest is last", policy.steps.minimum_is_last, last),
        ]
    name, first = next(iter(policies.items()))
    return [
        interval_plot(
            aucs,
            title="Do step rewards distinguish wrong steps from right ones?",
            note="AUC, first wrong steps against right steps before any error. Dashed: chance.",
            x=Axis(label="AUC", low=0.5, high=1.0, decimals=4),
            reference=0.5,
        ),
        interval_plot(
            shares,
            title="Where is the lowest reward?",
            note=(
                "At the first wrong step: share of the responses that have one. At the last step: "
                "share of all responses."
            ),
            x=Axis(label="share of responses", percent=True, low=0.0, high=1.0),
        ),
        histogram(
            first.rewards.edges,
            [
                Counts(name="right steps", counts=first.rewards.right, mark=Mark("blue")),
                Counts(name="first wrong steps", counts=first.rewards.first_wrong, mark=Mark("orange")),
            ],
            title=f"Step rewards, policy {name}",
            note="Right steps before any error, and first wrong steps; each strip has its own height.",
            x=Axis(label="step reward", decimals=2),
            unit="steps",
        ),
    ]


def _row(name: str, measured: Interval, mark: Mark | None = None) -> Estimate:
    return Estimate(name=name, value=measured.estimate, low=measured.low, high=measured.high, mark=mark)


def _times(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    """Stages run side by side, so their times add up to more than the whole."""
    return [(stage, duration(taken)) for stage, taken in seconds.items()]


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Settings by stage as text."""
    return {
        stage: {name: _written(value) for name, value in values.items()} for stage, values in settings.items()
    }


def _written(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_written(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)

"""The demo's report: from ``summary.json`` and the training log to one HTML file."""

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
from stepcredit.reports.plots import (
    Axis,
    Counts,
    Interval,
    Mark,
    histogram,
    interval_plot,
)
from stepcredit.reports.summary import DemoSummary, Localisation, PolicySummary
from stepcredit.reports.training_log import read_log, training_plots

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
        summary: What was measured; see :mod:`stepcredit.reports.summary`.
        directory: Holds the training log that the summary names.

    Returns:
        A complete HTML document. What the summary does not have is shown as absent.

    Raises:
        DataError: The training log is malformed.
    """
    names = [name for name in _POLICY_ORDER if name in summary.policies]
    names += [name for name in summary.policies if name not in names]
    policies = {name: summary.policies[name] for name in names}
    log = None if summary.training is None else read_log(Path(directory) / summary.training.log)
    main = policies[names[0]] if names else PolicySummary()
    sections = [("answers", "Answers"), ("steps", "Steps"), ("examples", "Examples")]
    return render_page(
        "demo.html",
        title="stepcredit demo report",
        kind="demo report",
        sections=[*sections, ("training", "Training"), ("made", "How it was made")],
        summary=summary,
        headline=headline(main),
        main=main,
        main_name=names[0] if names else None,
        figures=list(_figures(main)),
        tables=[policy_table(name, policy) for name, policy in policies.items()],
        curves=accuracy_curves(policies),
        curves_legend=choosers_legend(),
        localisation_plots=_localisation_plots(policies),
        heat_map=heat_map(summary.examples),
        training_plots=[] if log is None else training_plots(log),
        settings=_settings(summary.settings),
        run_facts=_run_facts(summary),
        times=_times(summary.seconds),
    )


def headline(policy: PolicySummary) -> str | None:
    """The finding in one sentence, or ``None`` if the numbers for it are absent."""
    n = _headline_n(policy)
    if n is None:
        return None
    ours, vote = (one.cells(policy.results)[n].accuracy for one in (LOWEST_STEP, MAJORITY))
    return (
        f"Picking among {n} responses by their lowest step reward gets {percent(ours)} "
        f"of the problems right; majority voting gets {percent(vote)}."
    )


def _headline_n(policy: PolicySummary) -> int | None:
    both = set(LOWEST_STEP.cells(policy.results)) & set(MAJORITY.cells(policy.results))
    return _HEADLINE_N if _HEADLINE_N in both else max(both, default=None)


def _figures(policy: PolicySummary) -> Iterator[Figure]:
    n = _headline_n(policy)
    difference = None if n is None else difference_of(policy, n, LOWEST_STEP, MAJORITY)
    if difference is not None:
        yield Figure(
            f"{points(difference.difference)} pts",
            interval(difference.low, difference.high),
            f"best of {n} by the lowest step less majority vote, on the same problems",
        )
    cells = LOWEST_STEP.cells(policy.results)
    if n is not None and max(cells) > n:
        largest = cells[max(cells)]
        yield Figure(
            percent(largest.accuracy),
            interval(largest.low, largest.high),
            f"right with the best of {largest.n} by the lowest step",
        )
    found = policy.localisation or Localisation()
    if found.auc is not None:
        ends = "" if found.auc_low is None else f"{plain(found.auc_low, 4)} to {plain(found.auc_high, 4)}"
        yield Figure(
            plain(found.auc, 4),
            ends,
            "AUC of step rewards: first wrong steps against right steps before them",
        )
    if found.lowest_is_first_wrong is not None:
        yield Figure(
            percent(found.lowest_is_first_wrong),
            interval(found.lowest_is_first_wrong_low, found.lowest_is_first_wrong_high),
            "of responses with a wrong step have their lowest reward at the first wrong one",
        )


def _localisation_plots(policies: Mapping[str, PolicySummary]) -> list[Markup]:
    known = {name: policy.localisation for name, policy in policies.items() if policy.localisation}
    if not known:
        return []
    aucs, shares = [], []
    for name, found in known.items():
        aucs += [
            Interval(name=f"{name}: implicit PRM", value=found.auc, low=found.auc_low, high=found.auc_high),
            Interval(
                name=f"{name}: reference log-prob.",
                value=found.reference_auc,
                low=found.reference_auc_low,
                high=found.reference_auc_high,
                mark=LOG_PROBABILITY.mark,
            ),
        ]
        shares += [
            Interval(
                name=f"{name}: lowest is first wrong",
                value=found.lowest_is_first_wrong,
                low=found.lowest_is_first_wrong_low,
                high=found.lowest_is_first_wrong_high,
            ),
            Interval(
                name=f"{name}: lowest is last",
                value=found.minimum_is_last,
                low=found.minimum_is_last_low,
                high=found.minimum_is_last_high,
                mark=Mark("brown", "square"),
            ),
        ]
    plots = [
        interval_plot(
            aucs,
            title="Does a step's reward tell wrong from right?",
            note="AUC, first wrong steps against right steps before any error. Dashed: chance.",
            x=Axis(label="AUC", low=0.5, high=1.0, decimals=4),
            reference=0.5,
        ),
        interval_plot(
            shares,
            title="Where is the lowest reward?",
            note="At the first wrong step, of responses that have one; at the last step, of all.",
            x=Axis(label="share of responses", percent=True, low=0.0, high=1.0),
        ),
    ]
    name, first = next(iter(known.items()))
    if first.histogram is not None:
        plots.append(
            histogram(
                first.histogram.edges,
                [
                    Counts(name="right steps", counts=first.histogram.right, mark=Mark("blue")),
                    Counts(name="first wrong steps", counts=first.histogram.first_wrong, mark=Mark("orange")),
                ],
                title=f"Step rewards, policy {name}",
                note="Right steps before any error, and first wrong steps; each strip has its own height.",
                x=Axis(label="step reward", decimals=2),
                unit="steps",
            )
        )
    return plots


def _run_facts(summary: DemoSummary) -> list[tuple[str, str]]:
    return [
        ("seed", str(summary.seed)),
        ("finished (UTC)", (summary.finished or ABSENT).replace("T", " ").removesuffix("Z")),
        ("commit", (summary.git_commit or ABSENT)[:12]),
    ]


def _times(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    rows = [(stage, duration(taken)) for stage, taken in seconds.items()]
    return [*rows, ("together", duration(sum(seconds.values())))] if rows else []


def _settings(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Settings by stage as text; single values belong to the whole run."""
    stages: dict[str, dict[str, str]] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            stages[name] = {str(key): _written(item) for key, item in value.items()}
        else:
            stages.setdefault("run", {})[name] = _written(value)
    return stages


def _written(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_written(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)

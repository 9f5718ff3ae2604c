"""The page of an evaluation: reward models side by side, from its ``results.json`` only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.data.strict_json import parse_json
from stepcredit.errors import DataError
from stepcredit.evaluation.tables import Table
from stepcredit.reports.cells import Cell, Gallery
from stepcredit.reports.evaluation_plots import accuracy_plot, calibration_plot, score_plot
from stepcredit.reports.examples import Example, ExampleStep, prompt_text
from stepcredit.reports.heatmap import heat_map
from stepcredit.reports.page import ABSENT, interval, percent, plain, points, render_page, signed, span
from stepcredit.reports.step_evaluation import render_step_evaluation

BEST_OF_N = "eval best-of-n"

_DIAGNOSED = (
    ("outcome_auc", "outcome AUC"),
    ("within_problem_auc", "AUC within problems"),
    ("minimum_is_last", "minimum is the last step"),
    ("calibration_error", "calibration error"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A method of the headline table.

    Attributes:
        detail: Which score it uses, if any.
        kind: CSS class: ``bound`` for an oracle, ``subject`` for the best scorer, else empty.
        cells: One for each n.
    """

    name: str
    detail: str
    kind: str
    cells: tuple[Cell, ...]


def read_evaluation(path: str | Path) -> dict[str, Any]:
    """Read and check a ``results.json``.

    Raises:
        DataError: It is not there, or no evaluation of stepcredit.
    """
    path = Path(path)
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError("cannot be read", where=path, hint="name a results.json") from error
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", where=path) from error
    if not isinstance(content, dict) or not {"command", "title", "data", "results"} <= content.keys():
        raise DataError("is not an evaluation", where=path, hint="name what stepcredit eval wrote into --out")
    return content


def render_evaluation(
    content: Mapping[str, Any], tables: Sequence[Table], *, title: str = "Evaluation"
) -> str:
    """The page of one evaluation.

    Args:
        content: What :func:`read_evaluation` gives.
        tables: All figures, shown in full at the end.
    """
    if content["command"] == BEST_OF_N:
        return _render_best_of_n(content, tables, title)
    return render_step_evaluation(content, tables, title)


def _render_best_of_n(content: Mapping[str, Any], tables: Sequence[Table], title: str) -> str:
    ns = sorted({row["n"] for row in content["results"]})
    galleries = list(_galleries(content))
    sections = [("accuracy", "Accuracy"), ("comparisons", "Comparisons"), ("diagnostics", "Diagnostics")]
    sections += [("failures", "Failures")] if galleries else []
    return render_page(
        "evaluation.html",
        title=title,
        kind="best of n",
        sections=[*sections, ("all", "All figures")],
        content=content,
        ns=ns,
        rows=_headline_rows(content, ns),
        finding=finding(content),
        curves=accuracy_plot(content),
        rises=score_plot(content),
        reliability=[calibration_plot(name, diagnosed) for name, diagnosed in content["diagnostics"].items()],
        diagnostics=_diagnostics_table(content),
        difficulty=_difficulty_table(content),
        comparisons=_comparisons(content, ns[-1], votes=False),
        vote_comparisons=_comparisons(content, ns[-1], votes=True),
        num_compared=len(content["comparisons"]),
        galleries=galleries,
        tables=tables,
    )


def _by_method(
    content: Mapping[str, Any],
) -> dict[tuple[str, str | None, str | None, int], Mapping[str, Any]]:
    return {(row["method"], row["scorer"], row["aggregate"], row["n"]): row for row in content["results"]}


def _shown_methods(content: Mapping[str, Any]) -> Iterator[tuple[str, str | None, str | None, str]]:
    """Method, scorer, aggregate and how the table names them."""
    yield "pass", None, None, "pass"
    yield "majority", None, None, "majority vote"
    for name, choice in content["choices"].items():
        yield "best-of-n", name, choice["aggregate"], name
        yield "weighted-sigmoid", name, choice["aggregate"], f"{name}, weighted vote"


def _headline_rows(content: Mapping[str, Any], ns: Sequence[int]) -> list[Row]:
    by_method = _by_method(content)
    methods = [shown for shown in _shown_methods(content) if (*shown[:3], ns[-1]) in by_method]
    choosers = [shown[:3] for shown in methods if shown[0] != "pass"]
    best = {n: max((by_method[*key, n]["accuracy"] for key in choosers), default=None) for n in ns}
    top = max(
        (shown for shown in methods if shown[0] == "best-of-n"),
        key=lambda shown: by_method[*shown[:3], ns[-1]]["accuracy"],
        default=None,
    )
    rows = []
    for shown in methods:
        method, scorer, aggregate, name = shown
        figures = [by_method[method, scorer, aggregate, n] for n in ns]
        cells = tuple(
            Cell(
                percent(row["accuracy"]),
                interval(row["low"], row["high"]),
                best=n > 1 and method != "pass" and row["accuracy"] == best[n],
            )
            for n, row in zip(ns, figures, strict=True)
        )
        kind = "bound" if method == "pass" else "subject" if shown == top else ""
        detail = "" if aggregate is None else f"by {aggregate}"
        detail = "an oracle: any of n is right" if method == "pass" else detail
        rows.append(Row(name, detail, kind, cells))
    return rows


def finding(content: Mapping[str, Any]) -> str:
    """The result in one sentence: the best scorer at the largest n against the vote or a single response."""
    ns = sorted({row["n"] for row in content["results"]})
    by_method = _by_method(content)
    scorers = [
        (by_method["best-of-n", name, choice["aggregate"], ns[-1]]["accuracy"], name, choice["aggregate"])
        for name, choice in content["choices"].items()
    ]
    single = next(
        row["accuracy"] for row in content["results"] if row["method"] == "pass" and row["n"] == ns[0]
    )
    if not scorers:
        return f"{percent(single)} of single responses are right." if ns[0] == 1 else "No scores were given."
    accuracy, name, aggregate = max(scorers)
    label = f"best-of-n/{name}/{aggregate}"
    text = f"Best of {ns[-1]} by {name} ({aggregate}) is right on {percent(accuracy)} of the problems"
    against = next(
        (
            row
            for row in content["comparisons"]
            if row["n"] == ns[-1] and {row["first"], row["second"]} == {label, "majority"}
        ),
        None,
    )
    if against is None:
        return f"{text}."
    ahead = against if against["first"] == label else _turned(against)
    certainty = f" (95% interval {_ends(ahead)})" if ahead["low"] is not None else ""
    return f"{text}: {points(ahead['difference'])} points against majority voting{certainty}."


def _comparisons(content: Mapping[str, Any], n: int, *, votes: bool) -> list[dict[str, str]]:
    """Those at one n, with or without weighted votes, the widest difference first."""
    rows = [
        row
        for row in content["comparisons"]
        if row["n"] == n and ("weighted-" in row["first"] + row["second"]) == votes
    ]
    return [_comparison(row) for row in sorted(rows, key=lambda row: -abs(row["difference"]))]


def _comparison(row: Mapping[str, Any]) -> dict[str, str]:
    """As text, the better method first."""
    if row["difference"] < 0:
        row = _turned(row)
    return {
        "first": row["first"],
        "second": row["second"],
        "difference": points(row["difference"]),
        "interval": _ends(row),
        "p": _p_value(row["p_value"]),
        "p_holm": _p_value(row["p_holm"]),
    }


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same comparison seen from the second method."""
    low, high = (None if end is None else -end for end in (row["high"], row["low"]))
    turned = {"first": row["second"], "second": row["first"], "difference": -row["difference"]}
    return {**row, **turned, "low": low, "high": high}


def _ends(row: Mapping[str, Any]) -> str:
    return ABSENT if row["low"] is None else f"{points(row['low'])} to {points(row['high'])}"


def _p_value(value: float | None) -> str:
    return "< 0.0001" if value is not None and value < 1e-4 else plain(value, 4)


def _diagnostics_table(content: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Rows of figures, one column a scorer."""
    every = content["diagnostics"].values()
    rows = []
    for key, label in _DIAGNOSED:
        cells = [
            Cell(plain(diagnosed[key]["estimate"]), span(diagnosed[key]["low"], diagnosed[key]["high"]))
            for diagnosed in every
        ]
        rows.append((label, cells))
    for quantity in ("characters", "tokens", "steps"):
        for which, label in (("pearson", ""), ("within_problems", ", within problems")):
            cells = [Cell(signed(diagnosed["correlations"][quantity][which])) for diagnosed in every]
            rows.append((f"correlation with {quantity}{label}", cells))
    if all(diagnosed["agreement"] is not None for diagnosed in every):
        for key, label in (
            ("share", "same answer as the majority"),
            ("accuracy_agreeing", "accuracy where they agree"),
            ("accuracy_differing", "accuracy where they differ"),
            ("majority_differing", "the majority's accuracy where they differ"),
        ):
            values = [diagnosed["agreement"][key] for diagnosed in every]
            rows.append((label, [Cell(percent(_estimate(value))) for value in values]))
    return rows


def _estimate(value: Any) -> float | None:
    number: float | None = value["estimate"] if isinstance(value, Mapping) else value
    return number


def _difficulty_table(content: Mapping[str, Any]) -> list[tuple[str, int, list[str]]]:
    """Share of right responses, problems, and accuracies: majority and then the scorers in order."""
    scorers = list(content["diagnostics"].items())
    if not scorers:
        return []
    rows = []
    for index, first in enumerate(scorers[0][1]["by_difficulty"]):
        low, high = first["low"], first["high"]
        name = percent(low, 0) if low == high else f"up to {percent(high, 0)}" if high < 1 else "below 100%"
        cells = [percent(first["accuracy"].get("majority"))]
        for scorer, diagnosed in scorers:
            accuracy = diagnosed["by_difficulty"][index]["accuracy"]
            cells.append(percent(accuracy.get(f"best-of-n/{scorer}/{diagnosed['aggregate']}")))
        rows.append((name, first["num_problems"], cells))
    return rows


def _galleries(content: Mapping[str, Any]) -> Iterator[Gallery]:
    for index, (scorer, failures) in enumerate(content["failures"].items()):
        examples = [example for failure in failures for example in _failure_examples(failure)]
        if examples:
            yield Gallery(scorer, f"failures-{index}", heat_map(examples))


def _failure_examples(failure: Mapping[str, Any]) -> Iterator[Example]:
    majority = {True: "the majority is right", False: "the majority is wrong too", None: ""}
    note = "; ".join(
        filter(
            None,
            (
                f"chosen, by {plain(failure['margin'], 2)} standard deviations",
                f"{percent(failure['right_share'], 0)} of the responses are right",
                majority[failure["majority_right"]],
            ),
        )
    )
    for key, correct, why in (
        ("chosen", False, note),
        ("best_right", True, "the best right response to the same problem"),
    ):
        shown = failure[key]
        steps = [step for step in shown["steps"] if step["text"]] or [
            {"text": shown["response"], "reward": shown["score"]}
        ]
        yield Example(
            prompt=prompt_text(failure["prompt"]),
            steps=tuple(ExampleStep(text=step["text"], reward=step["reward"]) for step in steps),
            id=shown["id"],
            answer=failure["answer"],
            prediction=shown["prediction"],
            correct=correct,
            reward=shown["score"],
            note=why,
        )

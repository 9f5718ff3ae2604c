"""The page of transfer: what was measured on each data set, and whether a reward model transfers to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stepcredit_study.gsm8k.fold_results import REFERENCE, SHORTNESS
from stepcredit_study.word_problems.verdicts import verdict

SOLUTIONS = "recorded solutions"
"""Their key among the results; the others are data sets with step labels."""

_HEAD = """# Transfer

Reward models that were trained on word problems, untouched, on data of other worlds. Recorded solutions are
of GSM8K problems, by four other models. A solution's score is the aggregate that was chosen on the word
problems' development problems, with length regressed out; a step's is its reward, compared with the mean
log-probability of its tokens under the PRMs' own reference, and with its length. A reward model *transfers*
if its AUC lies above one half and both differences above 0, does not if one of them lies below, and is
undecided otherwise; this, the data and the measures were [decided beforehand](../../preregistration.md).
Intervals are 95%, by bootstrap over problems.

A first wrong step comes after all right steps that it is compared with in its response, so a score that falls
from step to step has an AUC above one half. What was not decided beforehand: the AUC of a step's position
alone, and in the last column of each table the AUC among steps at the same position.
"""
_WORDS = {"holds": "transfers", "does not hold": "does not transfer"}


def transfer_page(results: Mapping[str, Any]) -> str:
    """Markdown with a table per data set."""
    parts = [_HEAD]
    if SOLUTIONS in results:
        parts.append("\n".join(_solutions(results[SOLUTIONS])))
    for name, measured in results.items():
        if name != SOLUTIONS:
            parts.append("\n".join(_steps(name, measured)))
    return "\n".join(parts) + "\n"


def _solutions(measured: Mapping[str, Any]) -> Iterator[str]:
    yield "## Recorded solutions: right above wrong\n"
    counts = {name: f"{measured[name]:,}" for name in ("solutions", "problems", "generators", "right")}
    yield "{solutions} solutions to {problems} problems by {generators} models; {right} are right.\n".format(
        **counts
    )
    picked = {
        (row["method"], row["scorer"], row["aggregate"]): row
        for row in measured["best of n"]
        if row["n"] == 4
    }
    for outcome in ("within a generator", "within a problem"):
        yield from _table(outcome, measured["methods"], outcome, "{}, minus {}")
        yield ""
    yield "| picking one of four | accuracy |\n| --- | --- |"
    chosen = measured["aggregates"]
    for (method, scorer, aggregate), row in picked.items():
        if scorer is None or aggregate == chosen.get(scorer, "reward"):
            name = method if scorer is None else f"{method}, {scorer}"
            yield f"| {name} | {_cell([row['accuracy'], row['low'], row['high']])} |"
    yield ""


def _steps(name: str, measured: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {name}: first wrong steps below right ones\n"
    first, before = measured["first wrong"], measured["right before"]
    yield (
        f"{first:,} first wrong steps, {before:,} right steps before any. A step's position alone, later "
        f"ones first, has AUC {_cell(measured['by position'])}.\n"
    )
    yield from _table("AUC", measured["methods"], "auc", "minus {1}", also="at the same position")
    yield ""


def _table(
    title: str, methods: Mapping[str, Any], outcome: str, difference: str, *, also: str | None = None
) -> Iterator[str]:
    header = ["", title, f"minus {REFERENCE}", f"minus {SHORTNESS}", "", *([] if also is None else [also])]
    yield f"| {' | '.join(header)} |\n| {' | '.join(['---'] * len(header))} |"
    for name, row in methods.items():
        auc, last = row[outcome], [] if also is None else [_cell(row[also])]
        if name in (REFERENCE, SHORTNESS):
            cells = [name, _cell(auc), "–", "–", "", *last]
        else:
            minus = [row[difference.format(outcome, control)] for control in (REFERENCE, SHORTNESS)]
            above_chance = None if auc is None else [value - 0.5 for value in auc]
            found = verdict([above_chance, *minus])
            cells = [name, *map(_cell, (auc, *minus)), f"**{_WORDS.get(found, found)}**", *last]
        yield f"| {' | '.join(cells)} |"


def _cell(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else "{:.3f} [{:.3f}, {:.3f}]".format(*interval)

"""Which claims hold on word problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepcredit_study.analyses.operations import PARTS, UNSHARED
from stepcredit_study.pages.finding import Verdict
from stepcredit_study.word_problems.claims import CLAIMS, Claim, Interval


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim's verdict on one test set, and the intervals that decide it."""

    claim: Claim
    verdict: Verdict
    here: Mapping[str, Interval]


def judge(outcomes: Mapping[str, Any]) -> list[Judged]:
    """All claims on the outcomes of one test set; what was not run is not measured."""
    largest = max(outcomes["majority"], key=int)
    judged = []
    for claim in CLAIMS:
        here = {
            f"{method}, {measure.words}": measure.of(outcomes["methods"].get(method, {}), largest)
            for method in claim.methods
            for measure in claim.measures
        }
        judged.append(Judged(claim, verdict(here.values(), claim.sign), here))
    return judged


def verdict(intervals: Iterable[Interval], sign: int = 1) -> Verdict:
    """Of a claim of several parts: one that fails fails it, else one that is undecided leaves it so.

    Args:
        intervals: ``None`` was not measured, and leaves the claim not measured unless another part fails it.
        sign: 1 where the claim says above zero, -1 below.
    """
    parts = list(intervals)
    ends = [sorted((sign * part[1], sign * part[2])) for part in parts if part is not None]
    if any(high < 0 for _, high in ends):
        return "does not hold"
    if len(ends) < len(parts):
        return "not measured"
    return "holds" if all(low > 0 for low, _ in ends) else "undecided"


def judge_costs(results: Mapping[str, Any]) -> list[Judged]:
    """Claims on operations of collection, labelling and training, nothing shared between responses."""
    ce, few = "implicit-ce", results.get("operations of a few", {})
    shepherd, autopsv, dpo = (
        factor_of(results, method, how=UNSHARED) for method in ("math-shepherd", "autopsv", "implicit-dpo")
    )
    dpo_of_few = factor_of({"operations": few}, "implicit-dpo", how=UNSHARED)
    dearer = None if shepherd is None or autopsv is None else shepherd - autopsv
    rows = (
        (
            "2.1",
            "Math-Shepherd costs more than ten times as many operations as CE.",
            {"times CE minus 10": _minus_number(shepherd, 10.0)},
        ),
        (
            "2.2",
            "AutoPSV costs more than CE and less than Math-Shepherd.",
            {"times CE minus 1": _minus_number(autopsv, 1.0), "Math-Shepherd more by": dearer},
        ),
        (
            "2.3",
            "DPO costs less than CE with 2 responses and more with 8, because pairs grow faster than "
            "responses.",
            {
                "1 minus times CE, 2 responses": None if dpo_of_few is None else 1.0 - dpo_of_few,
                "times CE minus 1, 8 responses": _minus_number(dpo, 1.0),
            },
        ),
    )
    judged = []
    for number, text, values in rows:
        here = {name: None if value is None else (value,) * 3 for name, value in values.items()}
        claim = Claim(number=number, text=text, methods=(ce,), measures=())
        judged.append(Judged(claim, verdict(here.values()), here))
    return judged


def verdict_cells(results: Mapping[str, Any]) -> dict[str, str]:
    """Number of a claim to its verdicts and numbers, one line, on the middle policy's responses.

    Args:
        results: Of a study; claims that were not measured are left out.
    """
    cells: dict[str, list[str]] = {}
    sets = {
        f"{templates} templates: ": judge(outcomes)
        for templates in results.get("test sets", ())
        if (outcomes := results.get("outcomes", {}).get(f"{templates}/middle"))
    }
    for place, claims in {**sets, "": judge_costs(results)}.items():
        for judged in claims:
            if judged.verdict != "not measured":
                words = ", ".join(f"{name} {in_words(values)}" for name, values in judged.here.items())
                cells.setdefault(judged.claim.number, []).append(f"{place}**{judged.verdict}** ({words})")
    return {number: "; ".join(parts) for number, parts in cells.items()}


def in_words(interval: Interval) -> str:
    """``estimate [low, high]``, or a number alone where it was counted."""
    if interval is None:
        return "–"
    estimate, low, high = interval
    if low == high:
        return f"{estimate:.2f}"
    return f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


def _minus_number(value: float | None, other: float) -> float | None:
    return None if value is None else value - other


def factor_of(
    results: Mapping[str, Any], method: str, usual: str = "implicit-ce", *, how: str = ""
) -> float | None:
    """How many times the operations of collection, labelling and training of ``usual`` a method takes.

    Args:
        how: Empty, or ``UNSHARED``.
    """
    known = results.get("operations", {})
    if method not in known or usual not in known:
        return None
    total = {name: sum(known[name][part + how] for part in PARTS) for name in (method, usual)}
    return float(total[method] / total[usual])

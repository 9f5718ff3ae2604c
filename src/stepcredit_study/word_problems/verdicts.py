"""Which claims hold on word problems: the preregistered ones, and the paper's that are measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepcredit_study.pages.finding import Verdict
from stepcredit_study.word_problems.evidence import REFERENCE, SHORTNESS

FIRST: Final = ("implicit-ce", "implicit-dpo")
OBJECTIVES: Final = (*FIRST, "implicit-kto", "implicit-nca")
STEP_MODELS: Final = ("math-shepherd", "autopsv")
Interval = Sequence[float] | None
"""``[estimate, low, high]``; ``None`` was not measured."""

_LARGEST: Final = "N"
"""Stands for the largest number of responses to choose from."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a method's results.

    Attributes:
        path: Where it lies in them.
        chance: What it is compared with.
    """

    path: tuple[str, ...]
    chance: float = 0.0

    def of(self, row: Mapping[str, Any], largest: str) -> Interval:
        """Its interval minus what it is compared with; ``None`` where it was not measured."""
        value: Any = row
        for name in self.path:
            value = (value or {}).get(largest if name == _LARGEST else name)
        return None if value is None else [number - self.chance for number in value]

    @property
    def words(self) -> str:
        """How a page names it."""
        return f"{self.path[-1]} minus {self.chance:g}" if self.chance else self.path[-1]


AUC: Final = Measure(("auc", "length regressed out"), 0.5)
VOTE: Final = Measure(("weighted vote", _LARGEST, "minus plain"))
BEST: Final = Measure(("best-of-n", _LARGEST, "minus majority"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is claimed of some methods.

    Attributes:
        number: Of the paper's finding, or ``P1`` to ``P3`` for the preregistered outcomes.
        text: In one sentence.
        methods: Of which it is claimed, all of them.
        measures: That decide it, all of them.
        sign: 1 where they are claimed to lie above zero, -1 below.
    """

    number: str
    text: str
    methods: tuple[str, ...]
    measures: tuple[Measure, ...]
    sign: int = 1


def _minus(*others: str) -> tuple[Measure, ...]:
    return tuple(Measure(("auc", f"minus {other}")) for other in others)


CLAIMS: Final = (
    Claim(
        number="P1",
        text="CE and DPO order right before wrong within a problem, length regressed out, better than "
        "chance, shortness and the reference's log-probability.",
        methods=FIRST,
        measures=(AUC, *_minus(SHORTNESS, REFERENCE)),
    ),
    Claim(
        number="P2",
        text="A vote weighted by CE or DPO beats the plain vote.",
        methods=FIRST,
        measures=(VOTE,),
    ),
    Claim(
        number="P3",
        text="Step rewards of CE and DPO tell first slips from right steps, better than chance and than the "
        "reference's log-probability.",
        methods=FIRST,
        measures=(Measure(("slips", "auc"), 0.5), Measure(("slips", "minus reference"))),
    ),
    Claim(
        number="1.1",
        text="An implicit PRM orders better than step models trained on Monte-Carlo and AutoPSV labels.",
        methods=FIRST,
        measures=_minus(*STEP_MODELS),
    ),
    Claim(
        number="1.2",
        text="By DPO and NCA an implicit PRM picks better than plain voting.",
        methods=("implicit-dpo", "implicit-nca"),
        measures=(BEST,),
    ),
    Claim(
        number="1.3",
        text="By CE and KTO an implicit PRM picks worse than plain voting.",
        methods=("implicit-ce", "implicit-kto"),
        measures=(BEST,),
        sign=-1,
    ),
    Claim(
        number="1.8",
        text="The untrained model's own log-probability is no substitute.",
        methods=FIRST,
        measures=_minus(REFERENCE),
    ),
    Claim(
        number="3.1",
        text="A vote weighted by an implicit PRM beats the plain vote, whatever the objective.",
        methods=OBJECTIVES,
        measures=(VOTE,),
    ),
    Claim(
        number="3.2",
        text="A weighted vote beats the implicit PRM alone, whatever the objective.",
        methods=OBJECTIVES,
        measures=(Measure(("weighted vote", _LARGEST, "minus best-of-n")),),
    ),
)


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
        intervals: ``None`` was not measured, and leaves the claim not measured.
        sign: 1 where the claim says above zero, -1 below.
    """
    ends = []
    for interval in intervals:
        if interval is None:
            return "not measured"
        ends.append(sorted((sign * interval[1], sign * interval[2])))
    if any(high < 0 for _, high in ends):
        return "does not hold"
    return "holds" if all(low > 0 for low, _ in ends) else "undecided"


def factor_of(results: Mapping[str, Any], method: str, usual: str = "implicit-ce") -> float | None:
    """How many times the operations of collection, labelling and training of ``usual`` a method takes."""
    known = results.get("operations", {})
    if method not in known or usual not in known:
        return None
    parts = ("collection", "labelling", "training")
    return float(sum(known[method][part] for part in parts) / sum(known[usual][part] for part in parts))

"""What is claimed of word problems: preregistered outcomes, and findings of the paper that they allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepcredit_study.frame.variants import DPO_AND_CE, MARGIN
from stepcredit_study.word_problems.evidence import REFERENCE, SHORTNESS
from stepcredit_study.word_problems.scale import (
    FEW_PROBLEMS,
    FEW_RESPONSES,
    FIRST,
    OTHER_KIND,
    OTHER_POLICY,
    REFERENCE_FREE,
    UNREFERENCED,
    WITHOUT,
)

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
        chance: What it is compared with: chance, or a margin.
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
        name = " ".join(self.path[1:]) if self.path[0] == "variants" else self.path[-1]
        return (
            f"{name} {'minus' if self.chance > 0 else 'plus'} {abs(self.chance):g}" if self.chance else name
        )


AUC: Final = Measure(("auc", "length regressed out"), 0.5)
VOTE: Final = Measure(("weighted vote", _LARGEST, "minus plain"))
BEST: Final = Measure(("best-of-n", _LARGEST, "minus majority"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is claimed of some methods.

    Attributes:
        number: Of the paper's finding, or ``P1`` to ``P3`` for the preregistered outcomes.
        methods: Of which it is claimed, all of them.
        sign: 1 where they are claimed to lie above zero, -1 below.
    """

    number: str
    text: str
    methods: tuple[str, ...]
    measures: tuple[Measure, ...]
    sign: int = 1


def _minus(*others: str) -> tuple[Measure, ...]:
    return tuple(Measure(("auc", f"minus {other}")) for other in others)


def _variant(name: str, minus: str = "usual", chance: float = 0.0) -> Measure:
    return Measure(("variants", name, f"minus {minus}"), chance)


def _below(numbers: Mapping[str, str], text: str, measure: Measure) -> Iterator[Claim]:
    """The same claim of several methods, by number: that a measure lies below zero.

    Args:
        text: ``{}`` stands for the method.
        measure: A variant minus the usual model: less data lose, or other data add less than a margin.
    """
    for method, number in numbers.items():
        words = text.format(DPO_AND_CE[method])
        yield Claim(number=number, text=words, methods=(method,), measures=(measure,), sign=-1)


def _no_loss(method: str, numbers: Sequence[str]) -> Iterator[Claim]:
    """Claims on the reference: no combination loses much, and all beat the untrained model."""
    label = DPO_AND_CE[method]
    for variant, number in zip((UNREFERENCED, REFERENCE_FREE, WITHOUT), numbers, strict=False):
        yield Claim(
            number=number,
            text=f"{label} {variant} loses less than {MARGIN:g} against training and scoring with it.",
            methods=(method,),
            measures=(_variant(variant, chance=-MARGIN),),
        )
    yield Claim(
        number=numbers[-1],
        text=f"Each of {label}'s four combinations ranks responses better than the untrained "
        "log-probability.",
        methods=(method,),
        measures=(
            *_minus(REFERENCE),
            *(_variant(variant, REFERENCE) for variant in (UNREFERENCED, REFERENCE_FREE, WITHOUT)),
        ),
    )


CLAIMS: Final = (
    Claim(
        number="P1",
        text="CE and DPO rank right above wrong responses to a problem, with length regressed out, "
        "better than chance, shortness and the reference's log-probability.",
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
        text="Step rewards of CE and DPO distinguish first slips from right steps better than chance "
        "and better than the reference's log-probability.",
        methods=FIRST,
        measures=(Measure(("slips", "auc"), 0.5), Measure(("slips", "minus reference"))),
    ),
    Claim(
        number="1.1",
        text="An implicit PRM ranks responses better than step models trained on Monte-Carlo and "
        "AutoPSV labels.",
        methods=FIRST,
        measures=_minus(*STEP_MODELS),
    ),
    Claim(
        number="1.2",
        text="Implicit PRMs trained by DPO and NCA pick better than plain voting.",
        methods=("implicit-dpo", "implicit-nca"),
        measures=(BEST,),
    ),
    Claim(
        number="1.3",
        text="Implicit PRMs trained by CE and KTO pick worse than plain voting.",
        methods=("implicit-ce", "implicit-kto"),
        measures=(BEST,),
        sign=-1,
    ),
    Claim(
        number="1.8",
        text="The untrained model's log-probability cannot replace an implicit PRM.",
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
    *_below(
        {"implicit-dpo": "4.1", "implicit-ce": "4.2"},
        "{} gains from four times the problems.",
        _variant(FEW_PROBLEMS),
    ),
    *_below(
        {"implicit-dpo": "5.1", "implicit-ce": "5.2"},
        "{} gains from 8 responses to a problem instead of 2.",
        _variant(FEW_RESPONSES),
    ),
    *(
        Claim(
            number=number,
            text=f"{label} gains more from more responses than from more problems, at equal cost.",
            methods=(method,),
            measures=(_variant(FEW_PROBLEMS, FEW_RESPONSES),),
        )
        for (method, label), number in zip(DPO_AND_CE.items(), ("5.3", "5.4"), strict=True)
    ),
    *_below(
        {"implicit-dpo": "7.1", "implicit-ce": "7.2"},
        f"Problems of another kind do not help {{}}: that adds less than {MARGIN:g}.",
        _variant(OTHER_KIND, chance=MARGIN),
    ),
    *_below(
        {"implicit-dpo": "8.1", "implicit-ce": "8.3"},
        f"Half the responses from another policy do not help {{}}: that adds less than {MARGIN:g}.",
        _variant(OTHER_POLICY, chance=MARGIN),
    ),
    *_no_loss("implicit-dpo", ("10.1", "10.2", "10.3", "10.4")),
    *_no_loss("implicit-ce", ("10.5", "10.6", "10.7", "10.8")),
)
"""AUC stands for within a problem, length regressed out."""
PRIMARY: Final = CLAIMS[:3]
"""Decided beforehand (docs/preregistration.md)."""

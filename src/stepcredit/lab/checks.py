"""What is known of a step of the lab, and how responses are cut into steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stepcredit.steps import StepRule
from stepcredit.types import Step

STEP_RULE: Final = StepRule("newline")
"""How the labs' responses are cut into steps."""


@dataclass(frozen=True, slots=True)
class StepCheck:
    """What is right and wrong in one step; a malformed step has nothing right.

    Attributes:
        step: The step, with its place in the response.
        expected: What the right solution says here; empty past its end.
        well_formed: It is a calculation such as ``7*8=6``, or an answer such as ``#6``.
        carried: It starts from the number that it should start from: in the first lab the one that the step
            before states (the problem's, for the first step).
        operation: Operation and operand are those that are due; for an answer: none is left.
        follows: What it states follows from what it says itself, whether that was the task or not.
        right: In the first lab: it and every step before it are those of the right solution. In the second,
            where an error can be undone: what it starts from and what it states are right.
    """

    step: Step
    expected: str
    well_formed: bool
    carried: bool
    operation: bool
    follows: bool
    right: bool

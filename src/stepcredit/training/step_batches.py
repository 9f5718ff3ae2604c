"""The tensors of one optimizer step: which responses, in which forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from stepcredit.training.batches import Cut, ForwardPlan, plan_forwards
from stepcredit.training.examples import TrainingSet
from stepcredit.training.families import ForwardBatch, make_forward_batch
from stepcredit.types import Encoded

ReferenceLogProbs = Callable[[Sequence[Encoded]], Sequence[Tensor]]
"""Reference log-probabilities (nats, float32) of the scored tokens of each sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """This process's share of one optimizer step.

    Attributes:
        forwards: Passes with gradients.
        mismatched: Passes over mismatched responses, without gradients.
        num_units: Units of the step over all processes.
        num_tokens: Tokens of the step over all processes (the forwards' only).
    """

    forwards: tuple[ForwardBatch, ...]
    mismatched: tuple[ForwardBatch, ...]
    num_units: int
    num_tokens: int


def make_step_batch(
    data: TrainingSet,
    units: Sequence[int],
    reference: ReferenceLogProbs | None,
    *,
    with_mismatched: bool,
    cut: Cut,
) -> StepBatch:
    """Lay out one process's share of a step.

    Args:
        data: Examples and units.
        units: The step's units, of all processes.
        reference: Gives reference log-probabilities; ``None`` without a reference.
        with_mismatched: Also lay out the mismatched responses.
        cut: How the step is cut into forward passes.
    """

    def batch(plan: ForwardPlan, sequences: Sequence[Encoded]) -> ForwardBatch:
        rows = [row for unit in plan.units for row in data.units[unit]]
        encoded = [sequences[row] for row in rows]
        return make_forward_batch(
            [data.examples[row] for row in rows],
            encoded,
            None if reference is None else reference(encoded),
            counted=plan.counted,
            packed=cut.packed,
        )

    def batches(sequences: Sequence[Encoded]) -> tuple[ForwardBatch, ...]:
        def lengths(unit: int) -> list[int]:
            return [len(sequences[row].token_ids) for row in data.units[unit]]

        return tuple(batch(plan, sequences) for plan in plan_forwards(units, lengths, cut))

    own = [example.encoded for example in data.examples]
    return StepBatch(
        forwards=batches(own),
        mismatched=batches(data.mismatched) if with_mismatched else (),
        num_units=len(units),
        num_tokens=sum(len(own[row].token_ids) for unit in units for row in data.units[unit]),
    )

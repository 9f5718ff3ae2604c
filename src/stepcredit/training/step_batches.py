"""The tensors of one optimizer step: which responses, in which forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepcredit.logprobs import pack, pad
from stepcredit.scorers.forward_batch import ForwardBatch
from stepcredit.training.batches import Cut, ForwardPlan, plan_forwards
from stepcredit.training.examples import Example, TrainingSet
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
        num_labels: Step labels of the step over all processes.
        num_tokens: Tokens of the step over all processes (the forwards' only).
    """

    forwards: tuple[ForwardBatch, ...]
    mismatched: tuple[ForwardBatch, ...]
    num_units: int
    num_labels: int
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
        reference: Gives reference log-probabilities; ``None`` without a reference.
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
        def of_unit(unit: int) -> list[Encoded]:
            return [sequences[row] for row in data.units[unit]]

        return tuple(batch(plan, sequences) for plan in plan_forwards(units, of_unit, cut))

    own = [example.encoded for example in data.examples]
    return StepBatch(
        forwards=batches(own),
        mismatched=batches(data.mismatched) if with_mismatched else (),
        num_units=len(units),
        num_labels=sum(len(data.examples[row].step_targets) for unit in units for row in data.units[unit]),
        num_tokens=sum(len(own[row].token_ids) for unit in units for row in data.units[unit]),
    )


def lay_out(
    examples: Sequence[Example], reference: ReferenceLogProbs | None, cut: Cut
) -> list[tuple[tuple[int, ...], ForwardBatch]]:
    """Forward passes over responses that are no step: which of them each has, and its tensors.

    Args:
        reference: Gives reference log-probabilities; ``None`` without a reference.
    """
    encoded = [example.encoded for example in examples]
    known = None if reference is None else list(reference(encoded))
    forwards = []
    for plan in plan_forwards(range(len(encoded)), lambda index: [encoded[index]], cut):
        forward = make_forward_batch(
            [examples[index] for index in plan.units],
            [encoded[index] for index in plan.units],
            None if known is None else [known[index] for index in plan.units],
            counted=plan.counted,
            packed=cut.packed,
        )
        forwards.append((plan.units, forward))
    return forwards


def make_forward_batch(
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    reference: Sequence[Tensor] | None,
    *,
    counted: bool = True,
    packed: bool = False,
) -> ForwardBatch:
    """Lay out one forward pass; identical sequences are computed once.

    Args:
        examples: The record's responses, in its order.
        encoded: Their tokens (which may be mismatched ones).
        packed: All sequences in one row, common prefixes once; the model must support it.
    """
    distinct: dict[Encoded, int] = {}
    first: list[int] = []
    sequence_of = []
    for index, item in enumerate(encoded):
        key = replace(item, step_ends=())
        if key not in distinct:
            distinct[key] = len(first)
            first.append(index)
        sequence_of.append(distinct[key])
    token_targets = None
    if any(example.step_targets for example in examples):
        token_targets = torch.full((len(encoded), max(item.num_scored for item in encoded)), torch.nan)
        for row, example in enumerate(examples):
            for position, label in example.step_targets:
                token_targets[row, position] = label
    return ForwardBatch(
        tokens=(pack if packed else pad)([encoded[index] for index in first]),
        sequence_of=torch.tensor(sequence_of),
        labels=torch.tensor([example.label for example in examples]),
        reference=None if reference is None else torch.cat([reference[index] for index in first]),
        token_targets=token_targets,
        ids=tuple(example.id for example in examples),
        counted=float(counted),
    )

"""What every side of the training benchmark trains on, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from stepcredit.data.pairing import pair_responses
from stepcredit.training.examples import Example, TrainingSet
from stepcredit.types import Encoded
from stepcredit_bench.limit import (
    OPTIMIZER_BYTES,
    forward_operations,
    num_parameters,
    separate_work,
    shared_work,
    training_operations,
)
from stepcredit_bench.workload import preference_pairs, response_groups

PAIRS_PER_PROMPT = 16
"""The method's cap (arXiv:2412.01981)."""

_PASS_BYTES = 12
"""Bytes moved per parameter to add a pass's gradient to those before it, in float32."""


@dataclass(frozen=True, kw_only=True)
class TrainWork:
    """What every side trains.

    Attributes:
        shape: Name in :data:`~stepcredit_bench.workload.SHAPES`.
        workload: ``pairs``: each with a prompt of its own; ``group``: several responses to each prompt,
            every second one right, and all right x all wrong pairs up to the method's cap.
        objective: ``dpo``; or ``ce``, which takes the responses alone.
        steps: Optimizer steps.
        batch_size: Prompts per step.
        responses: Responses to each prompt, an even number; 2 in ``pairs``.
        others_per_pass: Pairs, or responses for CE, of one forward pass of the other sides.
        learning_rate: Constant.
        beta: Scale of the log-ratio.
        tokens_per_forward: Our side's token budget of one forward pass; ``None`` is chosen as by default.
        precision: ``bfloat16``; or ``float32``, in which the sides' losses agree closely.
        seed: Of tokens and weights.
    """

    shape: str = "smollm2-135m"
    workload: str = "pairs"
    objective: str = "dpo"
    steps: int = 3
    batch_size: int = 8
    responses: int = 8
    others_per_pass: int = 8
    learning_rate: float = 1e-5
    beta: float = 0.1
    tokens_per_forward: int | None = None
    precision: str = "bfloat16"
    seed: int = 0

    @cached_property
    def data(self) -> TrainingSet:
        """Responses and units, in the order in which they are trained on."""
        examples = tuple(
            Example(id=f"{prompt}-{place}", prompt_id=str(prompt), encoded=encoded, label=1.0 - place % 2)
            for prompt, group in enumerate(self._groups())
            for place, encoded in enumerate(group)
        )
        if self.objective != "dpo":
            return TrainingSet(examples=examples, units=tuple((row,) for row in range(len(examples))))
        pairs = pair_responses(
            [example.prompt_id for example in examples],
            [example.label > 0.5 for example in examples],
            limit=PAIRS_PER_PROMPT,
            seed=self.seed,
        )
        return TrainingSet(examples=examples, units=pairs.indices)

    def _groups(self) -> list[list[Encoded]]:
        number = self.steps * self.batch_size
        if self.workload == "pairs":
            pairs = preference_pairs(self.shape, num_pairs=number, seed=self.seed)
            return [[pair.chosen, pair.rejected] for pair in pairs]
        return response_groups(
            self.shape, num_groups=number, responses_per_group=self.responses, seed=self.seed
        )

    @property
    def units_per_step(self) -> int:
        """Pairs, or responses for CE."""
        return len(self.data.units) // self.steps

    @property
    def unit(self) -> str:
        """What a unit is called."""
        return "pair" if self.objective == "dpo" else "response"

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What products run in; ``None`` is float32."""
        return torch.bfloat16 if self.precision == "bfloat16" else None

    @property
    def num_tokens(self) -> int:
        """Tokens of all units: a response counts as often as it is in one, with its prompt."""
        return self.data.epoch_tokens

    def sequences_of_step(self, step: int) -> list[Encoded]:
        """Of all of its units, chosen and rejected by turns."""
        units = self.data.units[step * self.units_per_step : (step + 1) * self.units_per_step]
        return [self.data.examples[row].encoded for unit in units for row in unit]

    def operations(self, *, shared: bool) -> float:
        """Operations of policy and reference: ``shared`` computes what is common to a step once."""
        work_of = shared_work if shared else separate_work
        works = [work_of(self.sequences_of_step(step)) for step in range(self.steps)]
        return sum(
            training_operations(self.shape, work) + forward_operations(self.shape, work) for work in works
        )

    def bytes_moved(self, passes: int) -> float:
        """By our side, of weights, gradients and moments: in the optimizer, and after a step's first pass.

        Args:
            passes: Forward passes of all steps.
        """
        moved = OPTIMIZER_BYTES * self.steps + _PASS_BYTES * (passes - self.steps)
        return num_parameters(self.shape) * float(moved)

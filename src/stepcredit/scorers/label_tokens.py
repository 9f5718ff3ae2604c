"""Language models that answer a step with a good or a bad label token (arXiv:2312.08935)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stepcredit.encoding import MathShepherdEncoding, RLHFlowEncoding
from stepcredit.logprobs import TokenBatch, token_log_probs
from stepcredit.logprobs.forward import logits_at
from stepcredit.objectives import ObjectiveInput
from stepcredit.scorers.forward_batch import ForwardBatch
from stepcredit.scorers.heads import values_record
from stepcredit.scorers.step_models import StepKind, StepReader, model_inputs


def read_label(
    model: Any, batch: TokenBatch, positions: Int[Tensor, " N"], *, label_ids: tuple[int, int]
) -> Float[Tensor, " N"]:
    """``softmax(logit(good), logit(bad))[good]`` of the next token, in [0, 1]."""
    logits = logits_at(model, positions, tokens=label_ids, **model_inputs(model, batch))
    probabilities: Tensor = logits.softmax(dim=-1)
    return probabilities[:, 0]


def label_record(model: nn.Module, batch: ForwardBatch, *, label_ids: tuple[int, int]) -> ObjectiveInput:
    """Log-odds of the good against the bad label after every scored token: the value of the prefix.

    A response's reward is the one at its last token.
    """
    tokens = batch.tokens
    good, bad = (torch.full_like(tokens.targets, label) for label in label_ids)
    twice = replace(
        tokens,
        source_index=tokens.token_index.repeat(2),
        targets=torch.cat([good, bad]),
        sequence_index=tokens.sequence_index.repeat(2),
        num_scored=tokens.num_scored * 2,
    )
    good_log_probs, bad_log_probs = token_log_probs(model, twice).chunk(2)
    return values_record(batch, good_log_probs - bad_log_probs)


MATH_SHEPHERD = StepKind(
    name="math-shepherd",
    encoding=MathShepherdEncoding,
    reader=lambda model, encoding: StepReader(model, partial(read_label, label_ids=encoding.label_ids)),
    record=lambda encoding, _: partial(label_record, label_ids=encoding.label_ids),
)
RLHFLOW = replace(MATH_SHEPHERD, name="rlhflow", encoding=RLHFlowEncoding)

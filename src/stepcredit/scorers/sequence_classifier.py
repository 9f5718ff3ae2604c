"""Outcome reward models: a sequence classifier with one output, which scores the response as one step."""

from __future__ import annotations

from typing import Any

import transformers
from jaxtyping import Float, Int
from torch import Tensor

from stepcredit.checkpoints import load_model
from stepcredit.encoding import ConversationEncoding
from stepcredit.errors import CheckpointError
from stepcredit.logprobs import TokenBatch
from stepcredit.scorers.heads import only_output
from stepcredit.scorers.loading import Checkpoint
from stepcredit.scorers.step_models import TAKEN_OF_CLASSIFIERS, StepKind, StepReader, model_inputs


def read_sequence(model: Any, batch: TokenBatch, positions: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The model's output, any real number; it finds the last token of a sequence by its own rule."""
    logits: Tensor = model(**model_inputs(model, batch)).logits.float()
    assert len(positions) == len(logits), "a sequence classifier's response is one step"
    if logits.shape[1] != 1:
        raise CheckpointError(
            f"has {logits.shape[1]} outputs, not one reward",
            where=model.config.name_or_path or None,
            hint="name a sequence classifier with num_labels 1",
        )
    return logits[:, 0]


def _reader(model: Any, encoding: Any) -> StepReader:
    del encoding
    padding = model.config.get_text_config().pad_token_id
    # The model finds the end of a sequence by its padding; without, it takes one sequence at a time.
    single = {"token_budget": 1} if padding is None else {"pad_token_id": int(padding)}
    return StepReader(model, read_sequence, share_prefixes=False, **single)


def _sequence_classifier(checkpoint: Checkpoint) -> Any:
    model_class = transformers.AutoModelForSequenceClassification
    return load_model(checkpoint.path, checkpoint.load, model_class=model_class)


ORM = StepKind(
    name="orm",
    encoding=ConversationEncoding,
    architecture="ForSequenceClassification",
    load_weights=_sequence_classifier,
    reader=_reader,
    from_logits=lambda _: only_output,
    of_sequence=True,
    takes=TAKEN_OF_CLASSIFIERS,
    response_aggregate="last",
)

"""Right or wrong, classified at the separator after each step, as TRL's former ``PRMTrainer`` trained it."""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from stepcredit.encoding import StepwiseEncoding
from stepcredit.errors import CheckpointError
from stepcredit.logprobs.forward import unwrapped
from stepcredit.objectives import ObjectiveInput
from stepcredit.scorers.forward_batch import ForwardBatch
from stepcredit.scorers.heads import load_classifier, scored_logits, values_record
from stepcredit.scorers.step_models import TAKEN_OF_CLASSIFIERS, StepKind
from stepcredit.wording import quantity

CLASS_NAMES = ("wrong", "right")
"""Of a model that is trained here; the second is right, as in TRL's data."""

_UNNAMED = ("label_0", "label_1")
_OPPOSITES = (
    CLASS_NAMES,
    ("incorrect", "correct"),
    ("bad", "good"),
    ("negative", "positive"),
    ("false", "true"),
    ("no", "yes"),
    ("-", "+"),
    ("0", "1"),
)


def right_class(configuration: Any) -> int:
    """Which of a classifier's two classes is right, by their names; without names it is the second.

    Raises:
        CheckpointError: There are not two classes, or their names do not say.
    """
    where = getattr(configuration, "name_or_path", None) or None
    names = tuple(str(configuration.id2label[key]) for key in sorted(configuration.id2label))
    if len(names) != 2:
        raise CheckpointError(
            f"has {quantity(len(names), 'class')}, not two",
            where=where,
            hint="name a token classifier of right and wrong steps",
        )
    folded = tuple(name.strip().lower() for name in names)
    if folded in (_UNNAMED, *_OPPOSITES):
        return 1
    if folded[::-1] in _OPPOSITES:
        return 0
    raise CheckpointError(
        f"its classes are called {names[0]!r} and {names[1]!r}, which does not say which of them is right",
        where=where,
        hint="call them wrong and right in id2label of its config.json",
    )


def probability_of(logits: Float[Tensor, "N classes"], *, right: int) -> Float[Tensor, " N"]:
    """The probability of the class that is right, in [0, 1]."""
    return logits.softmax(dim=-1)[:, right]


def classifier_record(model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
    """Log-odds of right against wrong at every scored token: the value of the prefix.

    Their cross-entropy with a label is that of the two classes.
    """
    logits = scored_logits(model, batch.tokens)
    right = right_class(unwrapped(model).config)
    return values_record(batch, logits[:, right] - logits[:, 1 - right])


TOKEN_CLASSIFIER = StepKind(
    name="token-classifier",
    encoding=StepwiseEncoding,
    architecture="ForTokenClassification",
    num_classes=2,
    class_names=CLASS_NAMES,
    load_weights=load_classifier,
    from_logits=lambda configuration: partial(probability_of, right=right_class(configuration)),
    record=lambda *_: classifier_record,
    takes=TAKEN_OF_CLASSIFIERS | {"step_separator"},
)

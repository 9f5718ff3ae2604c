"""What the project knows of one kind of reward model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import flag_of
from stepcredit.scorers.settings import ScorerSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from stepcredit.encoding import Encoding
    from stepcredit.objectives import ObjectiveInput
    from stepcredit.scorers.base import ResponseScorer
    from stepcredit.scorers.forward_batch import ForwardBatch
    from stepcredit.steps import StepRule

Record = Callable[["nn.Module", "ForwardBatch"], "ObjectiveInput"]
"""Runs a model on a batch, with gradients where they are on, and fills what objectives read."""

_TAKEN_BY_ALL = ("directory", "family", "load", "window", "with_tokens")
_FLAGS = {"policy": "--policy-server", "response_aggregate": "--aggregate"}
"""Settings that the command line has under other names."""


@dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """A kind of reward model: how text becomes tokens, how its output is read, how it is trained and saved.

    Attributes:
        name: As ``--family`` and ``prm.json`` have it.
        encoding: Makes its format from (tokenizer, step rule, context length); training and scoring share it.
            Where ``takes`` has ``step_separator``, it takes a ``separator`` too.
        record: Makes what training asks of it from (encoding, beta); ``None`` where it is not trained here.
        num_classes: Outputs of its head on every token; ``None`` for a language model's own head.
        class_names: What a fresh head's classes are called in the configuration; none for a single output.
        architecture: Ending of the class name by which a checkpoint's configuration shows that it is one.
        step_rule: What its published models were trained on; a trained model's card has its own.
        takes: Settings that mean something to it and not to every kind.
    """

    name: str
    encoding: Callable[..., Encoding]
    record: Callable[[Any, float], Record] | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    architecture: str | None = None
    step_rule: str = "auto"
    takes: frozenset[str] = frozenset({"steps", "response_aggregate"})

    @abstractmethod
    def load(self, settings: ScorerSettings) -> ResponseScorer:
        """The scorer of a checkpoint.

        Raises:
            CheckpointError: The checkpoint cannot be used as asked.
        """

    def make_encoding(
        self,
        tokenizer: PreTrainedTokenizerBase,
        step_rule: StepRule,
        max_tokens: int | None,
        separator: str | None = None,
    ) -> Encoding:
        """Its format.

        Args:
            separator: What is put after each step; by default the format's own.

        Raises:
            UserError: Its format has no choice of separator.
        """
        if separator is None:
            return self.encoding(tokenizer, step_rule, max_tokens)
        if "step_separator" not in self.takes:
            raise UserError(
                f"does not apply to the family {self.name}", where="--step-separator", hint="leave it out"
            )
        return self.encoding(tokenizer, step_rule, max_tokens, separator=separator)

    def own_step_rule(self, settings: ScorerSettings) -> str:
        """The step rule asked for, else the one that the model was trained with, as far as it is known."""
        from stepcredit.scorers.loading import Checkpoint

        return str(Checkpoint(settings).step_rule(self.step_rule))

    def identity(self, settings: ScorerSettings) -> dict[str, Any]:
        """What names the models by content, for a manifest; JSON-able."""
        from stepcredit.scorers.loading import Checkpoint

        return Checkpoint(settings).identity()

    def check(self, settings: ScorerSettings) -> None:
        """Refuse settings that have no meaning for this kind.

        Raises:
            UserError: Naming the first.
        """
        for setting in fields(settings):
            taken = setting.name in (*_TAKEN_BY_ALL, *self.takes)
            if not taken and getattr(settings, setting.name) != setting.default:
                flag = _FLAGS.get(setting.name, flag_of(setting))
                raise UserError(f"does not apply to the family {self.name}", where=flag, hint="leave it out")

    def recognises(self, configuration: Mapping[str, Any]) -> bool:
        """Whether the ``config.json`` of a checkpoint without ``prm.json`` is of this kind."""
        architecture = str(next(iter(configuration.get("architectures") or []), ""))
        if self.architecture is None or not architecture.endswith(self.architecture):
            return False
        # transformers leaves two classes, its default, out of the configuration.
        num_classes = len(configuration.get("id2label") or "--")
        return self.num_classes in (None, num_classes)

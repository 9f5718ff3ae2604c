"""What decides a scorer: one record, from the command line and from Python to the loader of each kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.errors import UserError
from stepcredit.types import TokenLogProbs

DEFAULT_WINDOW = 256
"""Several batches on an accelerator, seconds to minutes of work: what a run that is stopped does anew."""

Fields = ParamSpec("Fields")
Made = TypeVar("Made")


@dataclass(frozen=True)
class ScorerSettings:
    """Which reward model scores, and how.

    Attributes:
        directory: A reward model: a directory, GGUF file or hub id. For an implicit PRM one with
            ``prm.json``, or a plain checkpoint (then ``beta`` and, unless ``reference_free``, ``reference``
            are needed).
        reference: Takes the place of an implicit PRM's own reference: a checkpoint, which must be the same
            model, or a source of log-probabilities, which is taken at its word.
        beta: Takes the place of an implicit PRM's own scale.
        family: The kind of reward model; ``auto`` asks the checkpoint.
        policy: A source of an implicit PRM's log-probabilities, e.g. a server that holds it; then only the
            tokenizer and ``prm.json`` of ``directory`` are read.
        classifier_server: ``http://HOST:PORT#MODEL`` of a vLLM that holds the classifier (``vllm serve
            --runner pooling``); then only tokenizer, configuration and ``prm.json`` are read of
            ``directory``.
        reference_free: Score by the policy's log-probabilities alone.
        reference_floor: Least probability that the reference is taken to give a token, in [0, 1).
        steps: Step rule; by default the model's own, else ``auto``.
        step_separator: What a token classifier was trained to read after each step; by default the model's
            own, else a line end.
        convention: ``clean``, ``processbench`` or ``best-of-n``.
        response_aggregate: Which aggregate of the step scores is the response's reward.
        judge: What a generative reward model is asked: a YAML file, or the name of one that ships with the
            package.
        judge_generator: What runs it: ``transformers``, ``vllm``, or the address of an OpenAI-compatible
            server, for which ``directory`` is the model's name there.
        judge_samples: Answers to each solution, in the place of the judge's own number.
        cache: Directory that keeps between runs the log-probabilities of a reference, or of a model that is
            scored by its own.
        window: Most rollouts held in memory.
        with_tokens: Whether scores hold token rewards, where the model gives such.
    """

    directory: str | Path
    reference: str | Path | TokenLogProbs | None = None
    beta: float | None = None
    _: KW_ONLY
    family: str = "auto"
    policy: TokenLogProbs | None = None
    classifier_server: str | None = None
    reference_free: bool = False
    reference_floor: float = 0.0
    steps: str | None = None
    step_separator: str | None = None
    convention: str = "clean"
    response_aggregate: str | None = None
    judge: str | Path | None = None
    judge_generator: str = "transformers"
    judge_samples: int | None = None
    load: LoadOptions = field(default_factory=LoadOptions)
    cache: str | Path | None = None
    window: int = DEFAULT_WINDOW
    with_tokens: bool = False

    @property
    def reads_weights(self) -> bool:
        """Whether the model's weights are here, rather than on a server."""
        return self.policy is None and self.classifier_server is None


def _with_fields_of(
    record: Callable[Fields, ScorerSettings],
) -> Callable[[Callable[[ScorerSettings], Made]], Callable[Fields, Made]]:
    def decorate(function: Callable[[ScorerSettings], Made]) -> Callable[Fields, Made]:
        @functools.wraps(function)
        def call(*args: Fields.args, **kwargs: Fields.kwargs) -> Made:
            try:
                settings = record(*args, **kwargs)
            except TypeError as error:
                problem = str(error).replace("ScorerSettings.__init__()", f"{function.__name__}()")
                raise UserError(
                    problem, hint=f"it takes {', '.join(inspect.signature(record).parameters)}"
                ) from error
            return function(settings)

        call.__signature__ = inspect.signature(record)  # type: ignore[attr-defined]
        return call

    return decorate


takes_settings = _with_fields_of(ScorerSettings)
"""Makes a function of :class:`ScorerSettings` one of its fields, which are typed and described only there."""

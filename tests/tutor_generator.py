"""A tutor as a generator: continuations from exactly the distribution that the exact values are about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from stepcredit.errors import UserError
from stepcredit.generators.records import make_rollout, sampling_json
from stepcredit.generators.stopping import cut_at_stop
from stepcredit.generators.streams import stream_key, uniforms
from stepcredit.lab.task import Problem, parse_problem
from stepcredit.lab.tutor import SYMBOLS, Tutor
from stepcredit.lab.values import PrefixState, next_line, read_prefix
from stepcredit.runs import Ledger
from stepcredit.types import FinishReason, GenerationFailure, GenerationRequest, Rollout, Sampling


class TutorGenerator:
    """Writes as a tutor does; sample ``i`` draws from a stream of seed, prompt id, prefix and ``i``.

    It goes on from any prefix that :func:`stepcredit.lab.values.read_prefix` understands; others are
    failures.

    Args:
        tutor: Who writes.

    Attributes:
        ledger: Characters stand for tokens, end-of-turn included.
    """

    def __init__(self, tutor: Tutor) -> None:
        self._tutor = tutor
        self.ledger = Ledger()

    @property
    def name(self) -> str:
        """``tutor-`` and the tutor's name."""
        return f"tutor-{self._tutor.name}"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts in the order of the requests.

        Raises:
            DataError: A prompt is not a problem of the lab.
            UserError: The sampling settings ask for another distribution than the tutor's own.
        """
        for request in requests:
            _check_sampling(request.sampling)
            problem = parse_problem(request.prompt.prompt)
            state = read_prefix(problem, request.response_prefix)
            if state is None:
                reason = f"a tutor cannot go on from {request.response_prefix!r}"
                yield GenerationFailure(request.prompt.id, request.indices, reason)
                continue
            num_prompt_tokens = len(problem.text) + len(request.response_prefix)
            self.ledger.prompt_tokens += num_prompt_tokens
            for index, text in zip(request.indices, self._continue(request, problem, state), strict=True):
                text, reason, num_generated_tokens = _end(text, request.sampling)
                self.ledger.generated_tokens += num_generated_tokens
                yield make_rollout(
                    request,
                    index,
                    text=text,
                    reason=reason,
                    policy=self.name,
                    sampling=sampling_json(request.sampling),
                    num_prompt_tokens=num_prompt_tokens,
                    num_generated_tokens=num_generated_tokens,
                )

    def _continue(self, request: GenerationRequest, problem: Problem, state: PrefixState) -> list[str]:
        """What follows the prefix, for each sample asked for."""
        if state.answer is not None:
            return [""] * request.num_samples
        keys = np.array(
            [
                stream_key(request.sampling.seed, request.prompt.id, index, request.response_prefix)
                for index in request.indices
            ],
            dtype=np.uint64,
        )
        texts = ["\n" if state.line_open else ""] * len(keys)
        digits = np.full(len(keys), state.digit)
        ones = np.ones(len(keys), dtype=np.int64)
        for done in range(state.num_done, len(problem.operands)):
            symbol = SYMBOLS.index(problem.operations[done])
            results = self._tutor.next_digits(
                symbol * ones,
                digits,
                problem.operands[done] * ones,
                uniforms(keys, done * ones),
                problem.modulus,
            )
            texts = [
                f"{text}{next_line(problem, done, digit)}{result}\n"
                for text, digit, result in zip(texts, digits.tolist(), results.tolist(), strict=True)
            ]
            digits = results
        num_done = len(problem.operands)
        return [
            f"{text}{next_line(problem, num_done, digit)}{digit}".removeprefix(state.opened)
            for text, digit in zip(texts, digits.tolist(), strict=True)
        ]


def _check_sampling(sampling: Sampling) -> None:
    if (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) != (1.0, 1.0, 0, 0.0):
        raise UserError(
            "a tutor writes from its own distribution only",
            where="sampling",
            hint="use temperature 1 and no top-p, top-k or min-p",
        )


def _end(text: str, sampling: Sampling) -> tuple[str, FinishReason, int]:
    """The text cut at a stop string or at the length limit, why it ended, and its tokens."""
    cut = cut_at_stop(text[: sampling.max_new_tokens], sampling.stop)
    if cut is not None:
        return cut, "stop", len(cut)
    if len(text) + 1 > sampling.max_new_tokens:
        return text[: sampling.max_new_tokens], "length", sampling.max_new_tokens
    return text, "stop", len(text) + 1

"""A generator without a model: answers from a script, or random ones that depend only on the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from stepcredit.generators.records import make_rollout, sampling_json
from stepcredit.generators.stopping import cut_at_stop
from stepcredit.generators.streams import stream_key
from stepcredit.runs import Ledger
from stepcredit.types import GenerationFailure, GenerationRequest, Rollout

Script = Mapping[str, Sequence[str]] | Callable[[GenerationRequest, int], str]
"""Responses by prompt id (sample ``i`` gets number ``i``, round and round), or a function that answers."""


class FakeGenerator:
    """Answers at once, for tests and for trying a pipeline before a model is at hand.

    Without a script, sample ``i`` of a prompt is one to five lines of small sums and an answer, drawn from
    the same kind of random stream as a real sample's. A response prefix is continued, never repeated: a
    scripted response that starts with the prefix goes on after it.

    Args:
        script: What to answer; ``None`` for random responses.
        name: Written to ``Rollout.policy``.
        failures: Reasons by prompt id; such prompts fail.

    Attributes:
        ledger: Words stand for tokens.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        name: str = "fake",
        failures: Mapping[str, str] | None = None,
    ) -> None:
        self._script, self.name, self._failures = script, name, dict(failures or {})
        self.ledger = Ledger()

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts in the order of the requests."""
        for request in requests:
            if reason := self._failures.get(request.prompt.id):
                yield GenerationFailure(request.prompt.id, request.indices, reason)
                continue
            num_prompt_tokens = len(str(request.prompt.prompt).split())
            self.ledger.prompt_tokens += num_prompt_tokens
            for index in request.indices:
                text = self._answer(request, index).removeprefix(request.response_prefix)
                cut = cut_at_stop(text, request.sampling.stop)
                if request.sampling.keep_stop and cut is not None:
                    stop = (string for string in request.sampling.stop if string in text)
                    cut = text = text[: min(text.find(string) + len(string) for string in stop)]
                num_generated_tokens = len(text.split())
                self.ledger.generated_tokens += num_generated_tokens
                yield make_rollout(
                    request,
                    index,
                    text=text if cut is None else cut,
                    reason="stop",
                    policy=self.name,
                    sampling=sampling_json(request.sampling),
                    num_prompt_tokens=num_prompt_tokens,
                    num_generated_tokens=num_generated_tokens,
                )

    def _answer(self, request: GenerationRequest, index: int) -> str:
        if self._script is None:
            return _random_response(request, index)
        if callable(self._script):
            return self._script(request, index)
        responses = self._script[request.prompt.id]
        return responses[index % len(responses)]


def _random_response(request: GenerationRequest, index: int) -> str:
    key = stream_key(request.sampling.seed, request.prompt.id, index, request.response_prefix)
    random = np.random.default_rng(key)
    total = int(random.integers(10))
    lines = []
    for addend in random.integers(2, 10, size=int(random.integers(1, 6))).tolist():
        lines.append(f"{total} + {addend} = {total + addend}")
        total += addend
    return "\n".join([*lines, f"The answer is {total}."])

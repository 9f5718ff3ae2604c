"""From drawn tokens to a rollout, for the generators that see tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stepcredit.generators.prompts import Opening, PromptFormat
from stepcredit.generators.records import make_rollout, sampling_json
from stepcredit.generators.stopping import cut_at_stop
from stepcredit.types import FinishReason, GenerationRequest, Rollout


class Decoder:
    """Makes rollouts of tokens.

    Args:
        policy: Written to ``Rollout.policy``.
        tokenizer_hash: Written beside ``response_token_ids``; without it rollouts carry no token ids.
    """

    def __init__(self, prompt_format: PromptFormat, policy: str, tokenizer_hash: str | None) -> None:
        self._format, self._policy, self._tokenizer_hash = prompt_format, policy, tokenizer_hash

    def rollouts(
        self,
        request: GenerationRequest,
        indices: Iterable[int],
        opening: Opening,
        tokens: tuple[int, ...],
        reason: FinishReason,
    ) -> Iterator[Rollout]:
        """One rollout for each of the samples that drew ``tokens`` after ``opening``."""
        text = self._format.text_after(opening, tokens)
        cut = None if request.sampling.keep_stop else cut_at_stop(text, request.sampling.stop)
        if cut is not None:
            text, reason = cut, "stop"
        ids = self._recorded(opening, tokens, request.response_prefix + text)
        sampling = sampling_json(request.sampling)
        for index in indices:
            yield make_rollout(
                request,
                index,
                text=text,
                reason=reason,
                policy=self._policy,
                sampling=sampling,
                response_token_ids=ids,
                tokenizer=self._tokenizer_hash,
                num_prompt_tokens=len(opening.token_ids),
                num_generated_tokens=len(tokens),
            )

    def _recorded(self, opening: Opening, tokens: tuple[int, ...], response: str) -> tuple[int, ...] | None:
        """The response's token ids, where they say the response.

        A stop string cuts text inside them, and some tokenizers drop a leading space when they decode a
        response alone.
        """
        if self._tokenizer_hash is None or opening.prefix_ids is None:
            return None
        ids = opening.prefix_ids + tokens
        return ids if self._format.text(ids) == response else None

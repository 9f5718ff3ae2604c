"""What else could have stood where a verdict stands: candidates with log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import torch

from stepcredit.encoding.token_starts import token_starts
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.logprobs.forward import logits_at
from stepcredit.runs import Ledger
from stepcredit.types import Rollout

_NUM_CANDIDATES = 20

Place = tuple[str, Mapping[str, float]]
"""What the token that was drawn has before the word, and the candidates for it, in nats."""


class VerdictCandidates(Protocol):
    """Says what could have stood at characters of an answer."""

    def at(self, answer: Rollout, starts: Sequence[int]) -> list[Place] | None:
        """The place of the token that covers each character; ``None`` where nothing is known of them."""


class RecordedCandidates:
    """Those that a server sent with the answer."""

    def at(self, answer: Rollout, starts: Sequence[int]) -> list[Place] | None:
        """See :class:`VerdictCandidates`."""
        tokens: Sequence[tuple[str, Mapping[str, float]]] = answer.extras.get("token_log_probs") or ()
        text = "".join(token for token, _ in tokens)
        # A reasoning parser leaves its tags out, so what follows them is found by its text.
        tail = answer.response[min(starts, default=0) :]
        shift = text.rfind(tail) - (len(answer.response) - len(tail))
        if not tail or tail not in text:
            return None
        ends = list(accumulate(len(token) for token, _ in tokens))
        places = []
        for start in starts:
            index = next(number for number, end in enumerate(ends) if end > start + shift)
            token, candidates = tokens[index]
            places.append((token[: start + shift - (ends[index] - len(token))], candidates))
        return places


class LocalCandidates:
    """Those of a model on this machine, which reads each answer once more.

    Args:
        ledger: Gets the tokens that are read.
    """

    def __init__(self, generator: TransformersGenerator, ledger: Ledger) -> None:
        self._generator, self._ledger = generator, ledger

    @torch.no_grad()
    def at(self, answer: Rollout, starts: Sequence[int]) -> list[Place] | None:
        """See :class:`VerdictCandidates`."""
        ids, tokenizer = answer.response_token_ids, self._generator.tokenizer
        if ids is None:
            return None
        first_characters = token_starts(tokenizer, answer.response, ids)
        opening = self._generator.opening_ids(answer.prompt)
        places = [max(i for i, first in enumerate(first_characters) if first <= start) for start in starts]
        model = self._generator.model
        device = next(model.parameters()).device
        input_ids = torch.tensor([[*opening, *ids[: places[-1]]]], device=device)
        self._ledger.scored_tokens += input_ids.shape[1]
        at_places = torch.tensor([len(opening) + place - 1 for place in places], device=device)
        log_probs = logits_at(model, at_places, input_ids=input_ids, use_cache=False).log_softmax(dim=-1)
        best = log_probs.topk(min(_NUM_CANDIDATES, log_probs.shape[-1]))
        known = list[Place]()
        for row, (place, start) in enumerate(zip(places, starts, strict=True)):
            candidates = {
                str(tokenizer.decode([int(token)])): float(value)
                for token, value in zip(best.indices[row], best.values[row], strict=True)
            }
            known.append((answer.response[first_characters[place] : start], candidates))
        return known

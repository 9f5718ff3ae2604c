"""Log-probabilities of tokens as OpenAI-compatible servers write them beside an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcredit.servers import UnreadableAnswerError

TokenCandidates = tuple[str, Mapping[str, float]]
"""A token's text, and the log-probability (nats) of each candidate for its place by its text."""

_ROUNDING = 1e-4
"""Nats above 0 that rounding explains."""


def read_candidates(log_probs: Any) -> tuple[TokenCandidates, ...]:
    """Each token of an answer with its candidates, itself among them; nothing where the server gave none.

    Chat interfaces list records with ``top_logprobs``, completions columns of tokens and their candidates.

    Raises:
        UnreadableAnswerError: They are of another shape, or cannot be log-probabilities.
    """
    if not log_probs:
        return ()
    try:
        if log_probs.get("content") is not None:
            return tuple(
                _checked(
                    token["token"],
                    token["logprob"],
                    {other["token"]: other["logprob"] for other in token.get("top_logprobs") or ()},
                )
                for token in log_probs["content"]
            )
        columns = (log_probs.get(name) or () for name in ("tokens", "token_logprobs", "top_logprobs"))
        return tuple(_checked(token, own, others or {}) for token, own, others in zip(*columns, strict=True))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableAnswerError(
            f"the answer's log-probabilities cannot be read ({type(error).__name__}: {error})"
        ) from error


def _checked(token: Any, own: Any, others: Mapping[Any, Any]) -> TokenCandidates:
    candidates = {str(name): float(value) for name, value in {**others, token: own}.items()}
    impossible = [value for value in candidates.values() if not value <= _ROUNDING]
    if impossible:
        raise UnreadableAnswerError(
            f"the answer gives the token {str(token)!r} a log-probability of {impossible[0]:g}, "
            "which is above 0"
        )
    return str(token), candidates

"""What every generator writes the same way: rollouts, their ids, how they were drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from stepcredit.types import FinishReason, GenerationRequest, Rollout, Sampling

_WRITTEN_BY_COMMANDS = {
    "autopsv", "grading_failure", "monte_carlo", "num_generated_tokens", "num_prompt_tokens", "search",
    "source_finish_reason", "steps",
}  # fmt: skip
_ROLLOUT_FIELDS = frozenset(field.name for field in fields(Rollout)) | _WRITTEN_BY_COMMANDS
"""Where prompts are taken from a file of rollouts, what it says of the old response is not the new one's."""


def failures_path(out: Path) -> Path:
    """Where the prompts that failed are listed, beside the output."""
    return out.with_name(out.name + ".failures.jsonl")


def list_failure(out: Path, row: Mapping[str, Any]) -> None:
    """Append what failed and why to the list."""
    with open(failures_path(out), "a", encoding="utf-8") as handle:
        handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def rollout_id(request: GenerationRequest, index: int) -> str:
    """``<prompt id>:<index>``, with a hash of the response prefix where there is one."""
    if not request.response_prefix:
        return f"{request.prompt.id}:{index}"
    digest = hashlib.blake2b(request.response_prefix.encode("utf-8", "surrogatepass"), digest_size=6)
    return f"{request.prompt.id}:{index}:{digest.hexdigest()}"


def sampling_json(sampling: Sampling) -> dict[str, Any]:
    """The settings that were used, without those that are off."""
    settings: dict[str, Any] = {"temperature": sampling.temperature}
    if sampling.top_p < 1.0:
        settings["top_p"] = sampling.top_p
    if sampling.top_k > 0:
        settings["top_k"] = sampling.top_k
    if sampling.min_p > 0.0:
        settings["min_p"] = sampling.min_p
    settings["max_new_tokens"] = sampling.max_new_tokens
    if sampling.stop:
        settings["stop"] = list(sampling.stop)
    if sampling.keep_stop:
        settings["keep_stop"] = True
    settings["seed"] = sampling.seed
    return settings


def make_rollout(
    request: GenerationRequest,
    index: int,
    *,
    text: str,
    reason: FinishReason | None,
    policy: str,
    sampling: Mapping[str, Any],
    source_reason: str | None = None,
    response_token_ids: tuple[int, ...] | None = None,
    tokenizer: str | None = None,
    num_prompt_tokens: int | None = None,
    num_generated_tokens: int | None = None,
) -> Rollout:
    """A rollout of ``request``.

    Args:
        source_reason: A server's own word for it, kept in ``extras`` where ``reason`` says nothing.
        sampling: From :func:`sampling_json`.
        response_token_ids: Tokens of prefix and text with the end-of-turn, if they are the text's.
        tokenizer: Hash of the tokenizer that the ids belong to.
        num_prompt_tokens: Tokens of the opening, kept in ``extras`` for the ledger.
        num_generated_tokens: Tokens drawn, kept in ``extras`` for the ledger.
    """
    extras = {name: value for name, value in request.prompt.extras.items() if name not in _ROLLOUT_FIELDS}
    if reason is None and source_reason is not None:
        extras["source_finish_reason"] = source_reason
    if num_prompt_tokens is not None:
        extras["num_prompt_tokens"] = num_prompt_tokens
    if num_generated_tokens is not None:
        extras["num_generated_tokens"] = num_generated_tokens
    return Rollout(
        id=rollout_id(request, index),
        prompt_id=request.prompt.id,
        index=index,
        prompt=request.prompt.prompt,
        response=request.response_prefix + text,
        answer=request.prompt.answer,
        finish_reason=reason,
        policy=policy,
        sampling=sampling,
        response_token_ids=response_token_ids,
        tokenizer=tokenizer if response_token_ids is not None else None,
        extras=extras,
    )

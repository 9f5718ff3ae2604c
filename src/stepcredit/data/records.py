"""Prompts and rollouts as JSON: exact validation on the way in, the same fields on the way out.

Every ``*_from_json`` takes the decoded row and ``where`` it came from (``file:line``) and raises a
:class:`~stepcredit.errors.DataError` that names the place and the field. Fields that a record does not
know are its extras: kept untouched and written back after the known ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcredit.data.fields import (
    count_field,
    counts_field,
    name_field,
    number_field,
    object_at,
    optional_text,
    optional_truth,
    shown,
    text_field,
    wrong,
)
from stepcredit.data.messages import plain_prompt, prompt_field, prompt_name, response_turns, row_name
from stepcredit.errors import DataError
from stepcredit.servers.finish_reasons import FINISH_REASONS
from stepcredit.types import FinishReason, Message, Prompt, PromptText, Rollout, StepLabel

PROMPT_FIELDS = ("id", "prompt", "answer")
ROLLOUT_FIELDS = (
    "id", "prompt_id", "index", "prompt", "response", "answer", "correct", "prediction", "finish_reason",
    "policy", "sampling", "response_token_ids", "tokenizer", "step_labels",
)  # fmt: skip
_PROMPT_KNOWN = frozenset(PROMPT_FIELDS)
_ROLLOUT_KNOWN = frozenset(ROLLOUT_FIELDS)


def prompt_from_json(row: Mapping[str, Any], where: str = "row", position: int | None = None) -> Prompt:
    """Read a prompt.

    Args:
        position: Its position in the file, from 0; with it, a row without an id gets one.

    Raises:
        DataError: A field is missing or does not hold what it must.
    """
    prompt = prompt_field(row, "prompt", where)
    return Prompt(
        id=_id(row, where, position, prompt),
        prompt=prompt,
        answer=optional_text(row, "answer", where),
        extras={key: value for key, value in row.items() if key not in _PROMPT_KNOWN},
    )


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """The prompt's row; ``answer`` only where there is one."""
    row: dict[str, Any] = {"id": prompt.id, "prompt": plain_prompt(prompt.prompt)}
    if prompt.answer is not None:
        row["answer"] = prompt.answer
    row.update((name, value) for name, value in prompt.extras.items() if name not in _PROMPT_KNOWN)
    return row


def rollout_from_json(row: Mapping[str, Any], where: str = "row", position: int | None = None) -> Rollout:
    """Read a rollout, with its step labels if it has any.

    Args:
        position: Its position in the file, from 0; with it, a row without an id gets one, and a row
            without a prompt id one that all rows of the same prompt share.

    Raises:
        DataError: A field is missing or does not hold what it must.
    """
    prompt = prompt_field(row, "prompt", where)
    response, turns = _response(row, where)
    is_named = row.get("prompt_id") is not None or position is None
    sampling = row.get("sampling")
    if sampling is not None and not isinstance(sampling, dict):
        raise wrong(row, "sampling", "an object or null", where)
    token_ids, tokenizer = _token_ids(row, where)
    extras = {key: value for key, value in row.items() if key not in _ROLLOUT_KNOWN}
    finish_reason = finish_reason_of(row, where)
    if finish_reason is None and row.get("finish_reason") is not None:
        extras.setdefault("source_finish_reason", row["finish_reason"])
    return Rollout(
        id=_id(row, where, position, prompt, response),
        prompt_id=name_field(row, "prompt_id", where) if is_named else prompt_name(prompt),
        index=count_field(row, "index", where) if row.get("index") is not None else 0,
        prompt=prompt,
        response=response,
        answer=optional_text(row, "answer", where),
        correct=optional_truth(row, "correct", where),
        prediction=optional_text(row, "prediction", where),
        finish_reason=finish_reason,
        policy=optional_text(row, "policy", where),
        sampling=sampling,
        response_token_ids=token_ids,
        tokenizer=tokenizer,
        step_labels=_step_labels(row, len(response), where),
        extras=extras,
        turns=turns,
    )


def rollout_to_json(rollout: Rollout) -> dict[str, Any]:
    """The rollout's row; token ids, tokenizer and step labels only where there are any."""
    row: dict[str, Any] = {
        "id": rollout.id,
        "prompt_id": rollout.prompt_id,
        "index": rollout.index,
        "prompt": plain_prompt(rollout.prompt),
        "response": rollout.response if rollout.turns is None else plain_prompt(rollout.turns),
        "answer": rollout.answer,
        "correct": rollout.correct,
        "prediction": rollout.prediction,
        "finish_reason": rollout.finish_reason,
        "policy": rollout.policy,
        "sampling": None if rollout.sampling is None else dict(rollout.sampling),
    }
    if rollout.response_token_ids is not None:
        row["response_token_ids"] = list(rollout.response_token_ids)
    if rollout.tokenizer is not None:
        row["tokenizer"] = rollout.tokenizer
    if rollout.step_labels is not None:
        row["step_labels"] = [{"end": label.end, "label": label.label} for label in rollout.step_labels]
    row.update((name, value) for name, value in rollout.extras.items() if name not in _ROLLOUT_KNOWN)
    return row


def _response(row: Mapping[str, Any], where: str) -> tuple[str, tuple[Message, ...] | None]:
    """The response as text, and as turns where the row has such."""
    value = row.get("response")
    if not isinstance(value, list) or not value:
        return text_field(row, "response", where, empty=True), None
    response, turns = response_turns(value, "response", where)
    for field in ("response_token_ids", "step_labels"):
        if turns is not None and row.get(field) is not None:
            raise DataError(
                f"field {field!r} belongs to a response that is one text, not to turns",
                where=where,
                hint="leave it out, or use stepcredit.rl.token_rewards for token ids with a loss mask",
            )
    return response, turns


def finish_reason_of(row: Mapping[str, Any], where: str) -> FinishReason | None:
    """Why the response ended, from any server's name for it; ``None`` where it says neither.

    Raises:
        DataError: It is no reason that is known.
    """
    value = row.get("finish_reason")
    if value is None:
        return None
    name = value.lower() if isinstance(value, str) else ""
    if name not in FINISH_REASONS:
        raise DataError(
            f'field \'finish_reason\' must be "stop", "length" or null, not {shown(value)}',
            where=where,
            hint=f"known reasons of other servers: {', '.join(FINISH_REASONS)}",
        )
    return FINISH_REASONS[name]


def _id(row: Mapping[str, Any], where: str, position: int | None, *contents: PromptText) -> str:
    if row.get("id") is None and position is not None:
        return row_name(position, *contents)
    return name_field(row, "id", where)


def _token_ids(row: Mapping[str, Any], where: str) -> tuple[tuple[int, ...] | None, str | None]:
    tokenizer = optional_text(row, "tokenizer", where)
    if row.get("response_token_ids") is None:
        return None, tokenizer
    if tokenizer is None:
        raise DataError(
            "field 'response_token_ids' needs 'tokenizer', the hash of the tokenizer that they belong to",
            where=where,
        )
    return counts_field(row, "response_token_ids", where), tokenizer


def _step_labels(row: Mapping[str, Any], length: int, where: str) -> tuple[StepLabel, ...] | None:
    values = row.get("step_labels")
    if values is None:
        return None
    if not isinstance(values, list):
        raise wrong(row, "step_labels", "a list of {end, label} or null", where)
    labels: list[StepLabel] = []
    for number, value in enumerate(values):
        path = f"step_labels[{number}]"
        item = object_at(value, path, "end and label", where)
        path += "."
        end, label = count_field(item, "end", where, path), number_field(item, "label", where, path)
        if not 0.0 <= label <= 1.0:
            raise wrong(item, "label", "between 0 and 1", where, path)
        if end > length:
            raise wrong(item, "end", f"at most the response's length of {length} characters", where, path)
        if labels and end < labels[-1].end:
            raise wrong(item, "end", "no smaller than the one before it", where, path)
        labels.append(StepLabel(end=end, label=label))
    return tuple(labels)

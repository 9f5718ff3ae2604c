"""Records as JSON: exact validation on the way in, the same fields on the way out.

Every ``*_from_json`` takes the decoded row and ``where`` it came from (``file:line``) and raises a
:class:`~stepcredit.errors.DataError` that names the place and the field. Fields that a record does not
know are its extras: kept untouched and written back after the known ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from stepcredit.errors import DataError
from stepcredit.types import (
    FinishReason,
    Message,
    Prompt,
    PromptText,
    ResponseScore,
    Rollout,
    StepLabel,
    StepScore,
)

PROMPT_FIELDS = ("id", "prompt", "answer")
ROLLOUT_FIELDS = (
    "id",
    "prompt_id",
    "index",
    "prompt",
    "response",
    "answer",
    "correct",
    "prediction",
    "finish_reason",
    "policy",
    "sampling",
    "response_token_ids",
    "tokenizer",
    "step_labels",
)
_PROMPT_KNOWN = frozenset(PROMPT_FIELDS)
_ROLLOUT_KNOWN = frozenset(ROLLOUT_FIELDS)


def prompt_from_json(row: Mapping[str, Any], where: str = "row") -> Prompt:
    """Read a prompt.

    Raises:
        DataError: A field is missing or does not hold what it must.
    """
    return Prompt(
        id=_name(row, "id", where),
        prompt=_prompt(row, where),
        answer=_text_or_none(row, "answer", where),
        extras={key: value for key, value in row.items() if key not in _PROMPT_KNOWN},
    )


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """The prompt's row; ``answer`` only where there is one."""
    row: dict[str, Any] = {"id": prompt.id, "prompt": _plain_prompt(prompt.prompt)}
    if prompt.answer is not None:
        row["answer"] = prompt.answer
    row.update((name, value) for name, value in prompt.extras.items() if name not in _PROMPT_KNOWN)
    return row


def rollout_from_json(row: Mapping[str, Any], where: str = "row") -> Rollout:
    """Read a rollout, with its step labels if it has any.

    Raises:
        DataError: A field is missing or does not hold what it must.
    """
    response = row.get("response")
    if not isinstance(response, str):
        _wrong(row, "response", "a string", where)
    correct = row.get("correct")
    if correct is not None and not isinstance(correct, bool):
        _wrong(row, "correct", "true, false or null", where)
    sampling = row.get("sampling")
    if sampling is not None and not isinstance(sampling, dict):
        _wrong(row, "sampling", "an object or null", where)
    token_ids, tokenizer = _token_ids(row, where)
    return Rollout(
        id=_name(row, "id", where),
        prompt_id=_name(row, "prompt_id", where),
        index=_count(row, "index", where) if row.get("index") is not None else 0,
        prompt=_prompt(row, where),
        response=response,
        answer=_text_or_none(row, "answer", where),
        correct=correct,
        prediction=_text_or_none(row, "prediction", where),
        finish_reason=_finish_reason(row, where),
        policy=_text_or_none(row, "policy", where),
        sampling=sampling,
        response_token_ids=token_ids,
        tokenizer=tokenizer,
        step_labels=_step_labels(row, len(response), where),
        extras={key: value for key, value in row.items() if key not in _ROLLOUT_KNOWN},
    )


def rollout_to_json(rollout: Rollout) -> dict[str, Any]:
    """The rollout's row; token ids, tokenizer and step labels only where there are any."""
    row: dict[str, Any] = {
        "id": rollout.id,
        "prompt_id": rollout.prompt_id,
        "index": rollout.index,
        "prompt": _plain_prompt(rollout.prompt),
        "response": rollout.response,
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


def score_from_json(row: Mapping[str, Any], where: str = "row") -> ResponseScore:
    """Read a response's score.

    Raises:
        DataError: A field is missing or does not hold what it must.
    """
    steps = row.get("steps")
    if not isinstance(steps, list):
        _wrong(row, "steps", "a list", where)
    aggregates = row.get("aggregates")
    if not isinstance(aggregates, dict):
        _wrong(row, "aggregates", "an object of numbers", where)
    token_rewards, token_ends = row.get("token_rewards"), row.get("token_ends")
    return ResponseScore(
        id=_name(row, "id", where),
        prompt_id=_name(row, "prompt_id", where),
        reward=_number(row, "reward", where),
        steps=tuple(_step_score(step, f"steps[{number}]", where) for number, step in enumerate(steps)),
        aggregates={name: _number(aggregates, name, where, "aggregates.") for name in aggregates},
        num_tokens=_count(row, "num_tokens", where),
        scorer=_name(row, "scorer", where),
        scored_text=_text_or_none(row, "scored_text", where),
        token_rewards=None if token_rewards is None else _numbers(row, "token_rewards", where),
        token_ends=None if token_ends is None else _counts(row, "token_ends", where),
    )


def score_to_json(score: ResponseScore) -> dict[str, Any]:
    """The score's row; rewritten text and token rewards only where there are any."""
    row: dict[str, Any] = {
        "id": score.id,
        "prompt_id": score.prompt_id,
        "reward": score.reward,
        "steps": [
            {
                "index": step.index,
                "text": step.text,
                "start": step.start,
                "end": step.end,
                "reward": step.reward,
                "value": step.value,
            }
            for step in score.steps
        ],
        "aggregates": dict(score.aggregates),
        "num_tokens": score.num_tokens,
        "scorer": score.scorer,
    }
    if score.scored_text is not None:
        row["scored_text"] = score.scored_text
    if score.token_rewards is not None:
        row["token_rewards"] = list(score.token_rewards)
    if score.token_ends is not None:
        row["token_ends"] = list(score.token_ends)
    return row


def shown(value: Any, limit: int = 60) -> str:
    """A value as it stands in an error message: JSON where possible, cut to ``limit`` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _wrong(row: Mapping[str, Any], field: str, must_be: str, where: str, path: str = "") -> NoReturn:
    if field not in row:
        raise DataError(f"field {path + field!r} is missing; it must be {must_be}", where=where)
    raise DataError(f"field {path + field!r} must be {must_be}, not {shown(row[field])}", where=where)


def _name(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value:
        _wrong(row, field, "a string that is not empty", where)
    return value


def _text_or_none(row: Mapping[str, Any], field: str, where: str) -> str | None:
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        _wrong(row, field, "a string or null", where)
    return value


def _count(row: Mapping[str, Any], field: str, where: str, path: str = "") -> int:
    value = row.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _wrong(row, field, "a whole number, 0 or more", where, path)
    return value


def _number(row: Mapping[str, Any], field: str, where: str, path: str = "") -> float:
    value = row.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        _wrong(row, field, "a finite number", where, path)
    return float(value)


def _counts(row: Mapping[str, Any], field: str, where: str) -> tuple[int, ...]:
    values = row.get(field)
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        _wrong(row, field, "a list of whole numbers, 0 or more", where)
    return tuple(values)


def _numbers(row: Mapping[str, Any], field: str, where: str) -> tuple[float, ...]:
    values = row.get(field)
    if not isinstance(values, list) or not all(
        type(value) in (int, float) and math.isfinite(value) for value in values
    ):
        _wrong(row, field, "a list of finite numbers", where)
    return tuple(float(value) for value in values)


def _prompt(row: Mapping[str, Any], where: str) -> PromptText:
    value = row.get("prompt")
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, list) or not value:
        _wrong(row, "prompt", "a string or a list of {role, content}, not empty", where)
    return messages_from_json(value, "prompt", where)


def messages_from_json(value: list[Any], field: str, where: str) -> list[Message]:
    """Check a conversation that awaits the assistant's turn.

    Raises:
        DataError: A turn lacks its role or content, or the assistant's turn comes last.
    """
    for number, message in enumerate(value):
        if not isinstance(message, dict):
            raise DataError(
                f"field '{field}[{number}]' must be an object with role and content, not {shown(message)}",
                where=where,
            )
        for part in ("role", "content"):
            if not isinstance(message.get(part), str):
                _wrong(message, part, "a string", where, f"{field}[{number}].")
    if value[-1]["role"] == "assistant":
        raise DataError(
            f"field {field!r} ends with an assistant's turn; it must end before the response", where=where
        )
    return value


def _plain_prompt(prompt: PromptText) -> str | list[dict[str, Any]]:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def _finish_reason(row: Mapping[str, Any], where: str) -> FinishReason | None:
    value = row.get("finish_reason")
    if value is None or value == "stop" or value == "length":
        return value
    _wrong(row, "finish_reason", '"stop", "length" or null', where)


def _token_ids(row: Mapping[str, Any], where: str) -> tuple[tuple[int, ...] | None, str | None]:
    tokenizer = _text_or_none(row, "tokenizer", where)
    if row.get("response_token_ids") is None:
        return None, tokenizer
    if tokenizer is None:
        raise DataError(
            "field 'response_token_ids' needs 'tokenizer', the hash of the tokenizer that they belong to",
            where=where,
        )
    return _counts(row, "response_token_ids", where), tokenizer


def _step_labels(row: Mapping[str, Any], length: int, where: str) -> tuple[StepLabel, ...] | None:
    values = row.get("step_labels")
    if values is None:
        return None
    if not isinstance(values, list):
        _wrong(row, "step_labels", "a list of {end, label} or null", where)
    labels: list[StepLabel] = []
    for number, value in enumerate(values):
        path = f"step_labels[{number}]"
        if not isinstance(value, dict):
            raise DataError(f"field {path!r} must be an object with end and label", where=where)
        end = _count(value, "end", where, path + ".")
        label = _number(value, "label", where, path + ".")
        if not 0.0 <= label <= 1.0:
            _wrong(value, "label", "between 0 and 1", where, path + ".")
        if end > length:
            _wrong(value, "end", f"at most the response's length of {length} characters", where, path + ".")
        if labels and end < labels[-1].end:
            _wrong(value, "end", "no smaller than the one before it", where, path + ".")
        labels.append(StepLabel(end=end, label=label))
    return tuple(labels)


def _step_score(step: Any, path: str, where: str) -> StepScore:
    if not isinstance(step, dict):
        raise DataError(f"field {path!r} must be an object, not {shown(step)}", where=where)
    path += "."
    if not isinstance(step.get("text"), str):
        _wrong(step, "text", "a string", where, path)
    start, end = _count(step, "start", where, path), _count(step, "end", where, path)
    if end < start:
        _wrong(step, "end", f"no smaller than its start of {start}", where, path)
    return StepScore(
        index=_count(step, "index", where, path),
        text=step["text"],
        start=start,
        end=end,
        reward=_number(step, "reward", where, path),
        value=_number(step, "value", where, path),
    )

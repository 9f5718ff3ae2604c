"""Scores as JSON: exact validation on the way in, the same fields on the way out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from operator import add, le
from typing import Any

from stepcredit.data.fields import (
    LARGEST_COUNT,
    count_field,
    counts_field,
    is_number,
    name_field,
    number_field,
    numbers_field,
    object_at,
    text_field,
    wrong,
)
from stepcredit.errors import DataError
from stepcredit.types import LARGEST_NUMBER, ResponseScore, StepScore
from stepcredit.wording import quantity


def score_from_json(row: Mapping[str, Any], where: str = "row") -> ResponseScore:
    """Read a response's score.

    Raises:
        DataError: A field is missing or does not hold what it must; steps overlap, run backwards or past
            the text.
    """
    aggregates = object_at(row.get("aggregates"), "aggregates", "numbers", where)
    if "reward" in aggregates:
        raise DataError(
            "an aggregate cannot be called 'reward', as the response's own reward is", where=where
        )
    scored_text = None
    if row.get("scored_text") is not None:
        scored_text = text_field(row, "scored_text", where, empty=True)
    num_tokens = count_field(row, "num_tokens", where)
    token_rewards, token_ends = _tokens(row, num_tokens, where)
    return ResponseScore(
        id=name_field(row, "id", where),
        prompt_id=name_field(row, "prompt_id", where),
        reward=number_field(row, "reward", where),
        steps=_steps(row, scored_text, where),
        aggregates={
            name: number_field(aggregates, name, where, "aggregates.")
            for name, value in aggregates.items()
            if not _is_left_out(name, value)
        },
        num_tokens=num_tokens,
        scorer=text_field(row, "scorer", where),
        scored_text=scored_text,
        token_rewards=token_rewards,
        token_ends=token_ends,
    )


def is_score(row: Mapping[str, Any]) -> bool:
    """Whether :func:`score_from_json` takes the row as it is; several times faster, for files of many rows.

    False also says that a field has to be converted, such as an id that is a number.
    """
    try:
        steps, text = row["steps"], row.get("scored_text")
        starts = [step["start"] for step in steps]
        ends = [step["end"] for step in steps]
        texts = [step["text"] for step in steps]
        indices = [step["index"] for step in steps]
        numbers = [row["reward"], *row["aggregates"].values()]
        numbers += [step["reward"] for step in steps]
        numbers += [step["value"] for step in steps]
        counts = [row["num_tokens"], *indices, *starts, *ends]
        return (
            all(type(row[name]) is str and row[name] for name in ("id", "prompt_id", "scorer"))
            and type(steps) is list
            and "reward" not in row["aggregates"]
            and {*map(type, counts)} == {int}
            and {*map(type, numbers)} <= {int, float}
            and all(map(math.isfinite, numbers))
            and min(numbers) >= -LARGEST_NUMBER
            and max(numbers) <= LARGEST_NUMBER
            and min(counts) >= 0
            and max(counts) <= LARGEST_COUNT
            and indices == list(range(len(steps)))
            and {*map(type, texts)} <= {str}
            and all(map(le, ends, starts[1:]))
            and list(map(add, starts, map(len, texts))) == ends
            and (text is None or list(map(text.__getitem__, map(slice, starts, ends))) == texts)
            and type(text) in (str, type(None))
            and row.get("token_rewards") is None
            and row.get("token_ends") is None
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


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


def _is_left_out(name: str, value: Any) -> bool:
    """Whether an aggregate is a product of steps that is left out now, and once was not."""
    return name == "product" and is_number(value) and abs(value) > LARGEST_NUMBER


def _steps(row: Mapping[str, Any], scored_text: str | None, where: str) -> tuple[StepScore, ...]:
    values = row.get("steps")
    if not isinstance(values, list):
        raise wrong(row, "steps", "a list", where)
    steps: list[StepScore] = []
    for number, value in enumerate(values):
        path = f"steps[{number}]"
        step = object_at(value, path, "index, text, start, end, reward and value", where)
        steps.append(_step(step, steps[-1] if steps else None, where, path + "."))
        if scored_text is not None and scored_text[steps[-1].start : steps[-1].end] != steps[-1].text:
            raise wrong(step, "text", "what 'scored_text' holds from start to end", where, path + ".")
    return tuple(steps)


def _step(step: Mapping[str, Any], before: StepScore | None, where: str, path: str) -> StepScore:
    """A step that starts no sooner than the one before it ends."""
    index = count_field(step, "index", where, path)
    expected = 0 if before is None else before.index + 1
    if index != expected:
        raise wrong(step, "index", f"{expected}, as steps count from 0", where, path)
    text = text_field(step, "text", where, path, empty=True)
    start, end = count_field(step, "start", where, path), count_field(step, "end", where, path)
    if before is not None and start < before.end:
        raise wrong(step, "start", f"no smaller than the end of the step before, {before.end}", where, path)
    if end != start + len(text):
        hint = f"its start of {start} and the {quantity(len(text), 'character')} of its text"
        raise wrong(step, "end", f"{start + len(text)}, {hint}", where, path)
    return StepScore(
        index=index,
        text=text,
        start=start,
        end=end,
        reward=number_field(step, "reward", where, path),
        value=number_field(step, "value", where, path),
    )


def _tokens(
    row: Mapping[str, Any], num_tokens: int, where: str
) -> tuple[tuple[float, ...] | None, tuple[int, ...] | None]:
    """Rewards and ends of the tokens: both or neither, one per scored token."""
    if row.get("token_rewards") is None and row.get("token_ends") is None:
        return None, None
    rewards = numbers_field(row, "token_rewards", where)
    ends = counts_field(row, "token_ends", where)
    for field, length in (("token_rewards", len(rewards)), ("token_ends", len(ends))):
        if length != num_tokens:
            raise DataError(
                f"field {field!r} has length {length}, but 'num_tokens' is {num_tokens}", where=where
            )
    if any(later < earlier for earlier, later in pairwise(ends)):
        raise wrong(row, "token_ends", "a list of numbers that do not fall", where)
    return rewards, ends

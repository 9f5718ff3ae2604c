"""Prompts as verl stores them: the answer in ``reward_model``, the number of the row in ``extra_info``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepcredit.data.fields import name_field, object_at, optional_text
from stepcredit.data.messages import plain_prompt, prompt_field, row_name
from stepcredit.types import Prompt, Rollout

_FIELDS = ("data_source", "prompt", "ability", "reward_model", "extra_info")


def read_verl(row: Mapping[str, Any], where: str, position: int) -> Iterator[Prompt]:
    """The answer is ``reward_model.ground_truth``; the id ``extra_info.index`` where there is one."""
    prompt = prompt_field(row, "prompt", where)
    checker = object_at(row.get("reward_model") or {}, "reward_model", "ground_truth", where)
    info = object_at(row.get("extra_info") or {}, "extra_info", "index", where)
    has_index = info.get("index") is not None
    yield Prompt(
        id=name_field(info, "index", where) if has_index else row_name(position, prompt),
        prompt=prompt,
        answer=optional_text(checker, "ground_truth", where),
        extras={name: value for name, value in row.items() if name not in ("id", "prompt", "answer")},
    )


def write_verl(records: Iterable[Prompt | Rollout], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Each prompt once; what verl's rows must have and the records lack is called ``unknown``."""
    seen: set[int] = set()
    for record in records:
        name = record.id if isinstance(record, Prompt) else record.prompt_id
        lost["responses"] += isinstance(record, Rollout)
        if hash(name) in seen:
            continue
        seen.add(hash(name))
        if record.answer is None:
            lost["prompts without an answer"] += 1
            continue
        yield _row(record, name, len(seen) - 1)


def _row(record: Prompt | Rollout, name: str, position: int) -> dict[str, Any]:
    # The extras of a rollout are those of the response.
    extras = record.extras if isinstance(record, Prompt) else {}
    checker, info = extras.get("reward_model"), extras.get("extra_info")
    info = dict(info) if isinstance(info, dict) else {}
    if str(info.get("index")) != name:
        info |= {"index": position, "id": name}
    return {
        "data_source": extras.get("data_source", "unknown"),
        "prompt": _turns(record),
        "ability": extras.get("ability", "unknown"),
        "reward_model": {
            **(checker if isinstance(checker, dict) else {"style": "rule"}),
            "ground_truth": record.answer,
        },
        "extra_info": info,
        **{field: value for field, value in extras.items() if field not in _FIELDS},
    }


def _turns(record: Prompt | Rollout) -> list[dict[str, Any]]:
    plain = plain_prompt(record.prompt)
    return [{"role": "user", "content": plain}] if isinstance(plain, str) else plain

from __future__ import annotations

from typing import Any

import pytest

from stepcredit.data.prompt_ids import one_prompt_each
from stepcredit.errors import DataError
from stepcredit.types import Rollout


def _row(index: int, prompt: Any, prompt_id: str = "p") -> Rollout:
    return Rollout(id=f"{prompt_id}/{index}", prompt_id=prompt_id, prompt=prompt, response="1")


def test_rows_with_one_prompt_id_have_one_prompt() -> None:
    turn = {"role": "user", "content": "1+1="}
    same = [_row(0, [turn]), _row(1, [{**turn, "name": None}]), _row(0, "2+2=", "q")]
    assert list(one_prompt_each(same)) == same
    with pytest.raises(DataError, match=r"graded: 'p/2' has another prompt.*prompt id 'p'"):
        list(one_prompt_each([*same, _row(2, "1+1=2+")], "graded"))


def test_one_thing_may_be_asked_with_other_system_messages_unless_whole_prompts_are_compared() -> None:
    turn = {"role": "user", "content": "1+1="}
    rows = [_row(0, "1+1="), _row(1, [turn]), _row(2, [{"role": "system", "content": "Think."}, turn])]
    assert list(one_prompt_each(rows)) == rows
    assert list(one_prompt_each(rows[:2], exactly=True)) == rows[:2]
    with pytest.raises(DataError, match="'p/2' has another prompt"):
        list(one_prompt_each(rows, exactly=True))

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

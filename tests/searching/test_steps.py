from __future__ import annotations

import pytest

from stepcredit.errors import UserError
from stepcredit.searching.steps import step_ends
from stepcredit.steps import StepRule


@pytest.mark.parametrize("rule", ["newline", "blank-line", "sentence", "separator:###"])
def test_servers_take_as_many_texts_as_end_a_step(rule: str) -> None:
    assert 1 <= len(step_ends(StepRule.parse(rule))) <= 4


@pytest.mark.parametrize("end", [".\n", "!\n", "?\n", ". ", "! ", "? ", "\n"])
def test_every_end_of_a_sentence_ends_a_step(end: str) -> None:
    assert any(end.endswith(text) for text in step_ends(StepRule.parse("sentence")))


def test_a_rule_without_such_texts_is_refused() -> None:
    with pytest.raises(UserError, match="does not say which text ends a step"):
        step_ends(StepRule.parse("numbered-list"))

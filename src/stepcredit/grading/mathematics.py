"""The ``math`` grader: plain numbers at once, everything else in worker processes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

from stepcredit.grading.base import DIFFERS, MATCH, NO_ANSWER, RULES, UNREAD, Grade, GradingItem
from stepcredit.grading.extraction import compile_answer_pattern, final_answer, find_answer
from stepcredit.grading.numbers import (
    counted_number,
    number_text,
    plain_number,
    read_number,
    same_number,
    whole_fraction,
)
from stepcredit.grading.pool import Pending, PooledGrader, Ticket, WorkerPool

_VERDICTS_KEPT = 20_000
_PROMPTS_KEPT = 20_000
_FORMS_COMPARED = 32
_LONGEST_REASON = 200  # characters
_MEMORY_LIMIT = 2 << 30  # bytes of address space of a worker


def _grade_numbers(prediction: str, answer: str) -> Grade | None:
    """The verdict where the reference is a plain number and the prediction one, too, perhaps with a unit."""
    if plain_number(answer) is None and whole_fraction(answer) is None:
        return None
    number, expected = read_number(prediction) or counted_number(prediction), read_number(answer)
    if number is None or expected is None:
        return None
    same = same_number(expected, number)
    return Grade(same, number_text((expected if same else number).value), MATCH if same else DIFFERS)


class MathGrader(PooledGrader):
    """Mathematical equality of final answers.

    A prediction that is right takes the form of the reference answer, a wrong one its canonical form; wrong
    ones of the same prompt that are equal share the form that came first.

    Args:
        answer_pattern: Regular expression that finds the final answer, in place of the usual marks; its
            first group is the answer. The last match counts.
        time_limit: Seconds for each answer; one that takes longer is graded wrong, reason ``timeout``.
    """

    name = "math"
    _window = 512

    def __init__(
        self, *, answer_pattern: str | None = None, time_limit: float = 5.0, num_workers: int = 2
    ) -> None:
        self._answer_pattern = answer_pattern
        self._pattern = compile_answer_pattern(answer_pattern)
        self._time_limit = time_limit
        self._pool = WorkerPool(
            "stepcredit.grading.algebra:load",
            num_workers=num_workers,
            time_limit=time_limit,
            memory_limit=_MEMORY_LIMIT,
        )
        self._tickets: OrderedDict[tuple[str, str], Ticket] = OrderedDict()
        self._forms: OrderedDict[str, list[str]] = OrderedDict()

    @property
    def settings(self) -> Mapping[str, Any]:
        """Pattern, time limit and which rules of equality."""
        return {"answer_pattern": self._answer_pattern, "time_limit": self._time_limit, "rules": RULES}

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()
        self._tickets.clear()

    def remember(self, group: str, prediction: str) -> None:
        """Take note of a wrong prediction's form from an earlier run of the same work."""
        if plain_number(prediction) is None:
            self._forms_of(group).append(prediction)

    def _begin(self, item: GradingItem) -> Grade | Pending:
        self._pool.advance()
        prediction = find_answer(item.response, self._pattern, final_answer)
        if prediction is None:
            return Grade(False, None, NO_ANSWER)
        if (grade := _grade_numbers(prediction, item.answer.strip())) is not None:
            return grade
        return Pending(self._judge(prediction, item.answer), prediction, partial(self._grade, item.group))

    def _judge(self, prediction: str, answer: str) -> Ticket:
        key = (prediction, answer)
        ticket = self._tickets.get(key)
        if ticket is None:
            ticket = self._tickets[key] = self._pool.submit("judge", prediction, answer)
            if len(self._tickets) > _VERDICTS_KEPT:
                self._tickets.popitem(last=False)
        else:
            self._tickets.move_to_end(key)
        return ticket

    def _grade(self, group: str, verdict: tuple[bool, str, str | None]) -> Grade:
        correct, form, unread = verdict
        if correct:
            return Grade(True, form, MATCH)
        form = self._shared_form(group, form)
        return Grade(False, form, DIFFERS if unread is None else f"{UNREAD}: {unread}"[:_LONGEST_REASON])

    def _forms_of(self, group: str) -> list[str]:
        forms = self._forms.setdefault(group, [])
        self._forms.move_to_end(group)
        if len(self._forms) > _PROMPTS_KEPT:
            self._forms.popitem(last=False)
        return forms

    def _shared_form(self, group: str, form: str) -> str:
        """The form that equal wrong predictions of the same prompt already have."""
        if not group or plain_number(form) is not None:
            return form
        forms = self._forms_of(group)
        if form in forms:
            return form
        if forms:
            compared = forms[:_FORMS_COMPARED]
            outcome = self._pool.call("find", form, compared)
            if outcome.failure is None and outcome.value >= 0:
                return compared[int(outcome.value)]
        if len(forms) < _FORMS_COMPARED:
            forms.append(form)
        return form

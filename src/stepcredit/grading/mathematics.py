"""The ``math`` grader: plain numbers at once, everything else in worker processes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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
from stepcredit.grading.pool import PooledGrader, Ticket, WorkerPool, in_order

_WINDOW = 512  # items in flight, so that slow ones do not hold up the others
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


@dataclass(slots=True)
class _Open:
    """An item whose verdict may still be under way."""

    item: GradingItem
    prediction: str
    grade: Grade | None = None
    ticket: Ticket | None = None


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

    def grade_all(self, items: Iterable[GradingItem]) -> Iterator[Grade]:
        """Grade in input order."""
        for entry in in_order(map(self._begin, items), self._is_decided, _WINDOW):
            yield self._end(entry)

    def remember(self, group: str, prediction: str) -> None:
        """Take note of a wrong prediction's form from an earlier run of the same work."""
        if plain_number(prediction) is None:
            self._forms_of(group).append(prediction)

    def _begin(self, item: GradingItem) -> _Open:
        self._pool.advance()
        prediction = find_answer(item.response, self._pattern, final_answer)
        if prediction is None:
            return _Open(item, "", Grade(False, None, NO_ANSWER))
        if (grade := _grade_numbers(prediction, item.answer.strip())) is not None:
            return _Open(item, prediction, grade)
        return _Open(item, prediction, ticket=self._judge(prediction, item.answer))

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

    @staticmethod
    def _is_decided(entry: _Open) -> bool:
        return entry.grade is not None or (entry.ticket is not None and entry.ticket.done)

    def _end(self, entry: _Open) -> Grade:
        if entry.grade is not None:
            return entry.grade
        assert entry.ticket is not None
        outcome = self._pool.wait(entry.ticket)
        if outcome.failure is not None:
            return Grade(False, entry.prediction, outcome.failure)
        correct, form, unread = outcome.value
        if correct:
            return Grade(True, form, MATCH)
        form = self._shared_form(entry.item.group, form)
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

"""Whether two answers, both read as a whole, are the same."""

from __future__ import annotations

import re
from collections.abc import Sequence as Items
from fractions import Fraction
from itertools import pairwise
from typing import Any

from stepcredit.grading.answers import (
    Amount,
    Answer,
    Assignment,
    Based,
    Choice,
    Clock,
    Dots,
    Formula,
    Matrix,
    Ratio,
    Region,
    Relation,
    Sequence,
    Words,
)
from stepcredit.grading.formulas import constant, numerator, proportion, same_expression
from stepcredit.grading.numbers import Number, number_text, same_number
from stepcredit.grading.regions import expression_of, region_of, same_region
from stepcredit.grading.units import Unit

_HALF_A_DAY = 12 * 60
_MOST_MATCHED = 64


def same_answer(gold: Answer, prediction: Answer) -> bool:
    """Whether a prediction says what the reference says.

    It is symmetric but for equations: a predicted equation stands for its right side where the reference is
    no equation (``x + y = 5`` for 5), and not the other way round.
    """
    if gold == prediction:
        return True
    for rule in (_choices, _assignments, _amounts, _sequences, _regions, _relations, _clocks):
        verdict = rule(gold, prediction)
        if verdict is not None:
            return verdict
    return _expressions(gold, prediction)


def _choices(gold: Answer, prediction: Answer) -> bool | None:
    """A letter, its value, or both: what both give must agree."""
    if isinstance(gold, Choice) and isinstance(prediction, Choice):
        values = gold.value, prediction.value
        return gold.letter == prediction.letter and (
            values[0] is None or values[1] is None or same_answer(values[0], values[1])
        )
    for choice, other in ((gold, prediction), (prediction, gold)):
        if isinstance(choice, Choice):
            if isinstance(other, Formula) and str(other.expression).upper() == choice.letter:
                return True
            return choice.value is not None and _stands_for(choice.value, other, choice is gold)
    return None


def _assignments(gold: Answer, prediction: Answer) -> bool | None:
    """``x = 5`` equals 5; names count where both have one."""
    if isinstance(gold, Assignment) and isinstance(prediction, Assignment):
        if gold.name.lower() == prediction.name.lower() or _name_a_graph(gold.name, prediction.name):
            return same_answer(gold.value, prediction.value)
        return _same_relation(gold.relation, prediction.relation)
    for assignment, other in ((gold, prediction), (prediction, gold)):
        if isinstance(assignment, Assignment):
            if isinstance(other, Relation):
                return _same_relation(assignment.relation, other)
            return _stands_for(assignment.value, other, assignment is gold)
    return None


def _name_a_graph(first: str, second: str) -> bool:
    """Whether the names are ``y`` and ``f(x)``."""
    return any(
        one == "y" and re.fullmatch(r"[A-Za-z]\(x\)", other)
        for one, other in ((first, second), (second, first))
    )


def _stands_for(value: Answer, other: Answer, is_gold: bool) -> bool:
    """As :func:`same_answer`, of a part of one answer and the whole of the other one."""
    return same_answer(value, other) if is_gold else same_answer(other, value)


def _amounts(gold: Answer, prediction: Answer) -> bool | None:
    """Numbers with units: converted where both have one, as if both had the same where one has none."""
    if isinstance(gold, Amount) and isinstance(prediction, Amount):
        return _both_amounts(gold, prediction)
    if not isinstance(gold, Amount) and not isinstance(prediction, Amount):
        return None
    amount, other = (gold, prediction) if isinstance(gold, Amount) else (prediction, gold)
    assert isinstance(amount, Amount)
    if isinstance(other, Clock | Ratio | Words):
        return False
    if (
        isinstance(amount.unit, Unit)
        and amount.unit.doubtful
        and (amount is gold or not isinstance(other, Number))
    ):
        # 5m may be a product: then a bare 5 is wrong.
        return amount.product is not None and _stands_for(amount.product, other, amount is gold)
    return same_answer(amount.value, other) or any(
        same_expression(expression, expression_of(other)) for expression in _bare(amount)
    )


def _bare(amount: Amount) -> list[Any]:
    """What an amount is as a number, beside the one before its unit."""
    import sympy  # type: ignore[import-untyped]

    value = expression_of(amount.value)
    if value is None:
        return []
    return {"%": [value / 100], "degree": [value * sympy.pi / 180]}.get(str(amount.unit), [])


def _both_amounts(gold: Amount, prediction: Amount) -> bool:
    first, second = gold.unit, prediction.unit
    if not isinstance(first, Unit) or not isinstance(second, Unit):
        if first == second:
            return same_answer(gold.value, prediction.value)
        angles = [
            unit for unit in (first, second) if isinstance(unit, Unit) and unit.dimensions == (("angle", 1),)
        ]
        if not angles or "degree" not in (first, second):
            return False
        degrees, radians = (gold, prediction) if first == "degree" else (prediction, gold)
        return any(same_expression(value, expression_of(radians.value)) for value in _bare(degrees))
    if not first.agrees(second):
        return False
    if first.factor == second.factor:
        return same_answer(gold.value, prediction.value)
    # In the unit of either: a rounded decimal knows its last place in its own unit only.
    ratio = first.factor / second.factor
    return same_answer(_times(gold.value, ratio), prediction.value) or same_answer(
        gold.value, _times(prediction.value, 1 / ratio)
    )


def _times(value: Answer, factor: Fraction) -> Answer:
    import sympy

    if isinstance(value, Number):
        return Number(value.value * factor, irrational=value.irrational)
    expression = expression_of(value)
    return (
        value
        if expression is None
        else Formula(expression * sympy.Rational(factor.numerator, factor.denominator))
    )


def _sequences(gold: Answer, prediction: Answer) -> bool | None:
    if isinstance(gold, Matrix) and isinstance(prediction, Matrix):
        return len(gold.rows) == len(prediction.rows) and all(map(_in_order, gold.rows, prediction.rows))
    if isinstance(gold, Ratio) and isinstance(prediction, Ratio):
        return _proportional(gold.terms, prediction.terms)
    if not isinstance(gold, Sequence) and not isinstance(prediction, Sequence):
        return None
    if isinstance(gold, Sequence) and isinstance(prediction, Sequence):
        return _both_sequences(gold, prediction)
    sequence, other = (gold, prediction) if isinstance(gold, Sequence) else (prediction, gold)
    assert isinstance(sequence, Sequence)
    if isinstance(other, Matrix):
        return _is_vector(other, sequence)
    if isinstance(other, Region):
        region = region_of(sequence)
        return region is not None and same_region(region, other.points)
    first, *rest = sequence.items
    if sequence.kind == "row" or not all(same_answer(first, item) for item in rest):
        return False
    return _stands_for(first, other, sequence is gold)


def _is_vector(matrix: Matrix, row: Sequence) -> bool:
    """A vector may be written as a point: the same coordinates in the same order."""
    entries = [entry for line in matrix.rows for entry in line]
    is_line = len(matrix.rows) in (1, len(entries)) and len(entries) > 1
    is_point = row.kind == "row" and (row.brackets == "()" or (row.brackets == "[]" and len(entries) > 2))
    return is_line and is_point and _in_order(entries, row.items)


def _both_sequences(gold: Sequence, prediction: Sequence) -> bool:
    if gold.has_dots or prediction.has_dots:
        return _same_progression(gold.items, prediction.items)
    kinds = {gold.kind, prediction.kind}
    if kinds == {"row"}:
        if gold.brackets != prediction.brackets and len(gold.items) == 2:
            return False  # intervals with other ends
        return _in_order(gold.items, prediction.items)
    if kinds == {"row", "set"}:
        return False
    if "row" in kinds:  # a point without its parentheses
        row, plain = (gold, prediction) if gold.kind == "row" else (prediction, gold)
        return row.brackets != "<>" and _in_order(_unnamed(row.items), _unnamed(plain.items))
    return _in_any_order(gold.items, prediction.items)


def _unnamed(items: Items[Answer]) -> list[Answer]:
    """Coordinates without their names, those of x, y and z in that order."""
    names = [item.name for item in items if isinstance(item, Assignment)]
    if len(names) == len(items) and names != sorted(names) and {*names} <= {"x", "y", "z"}:
        return _unnamed(sorted(items, key=lambda item: item.name if isinstance(item, Assignment) else ""))
    return [item.value if isinstance(item, Assignment) else item for item in items]


def _in_order(gold: Items[Answer], prediction: Items[Answer]) -> bool:
    return len(gold) == len(prediction) and all(map(same_answer, gold, prediction))


def _in_any_order(gold: Items[Answer], prediction: Items[Answer]) -> bool:
    """Whether each item has an equal of its own in the other list."""
    if len(gold) != len(prediction) or len(gold) > _MOST_MATCHED:
        return False
    left = list(prediction)
    for item in gold:
        index = next((index for index, other in enumerate(left) if same_answer(item, other)), None)
        if index is None:
            return False
        del left[index]
    return True


def _same_progression(gold: Items[Answer], prediction: Items[Answer]) -> bool:
    """Sequences with dots: the same ends, and of a longer beginning the additional terms follow its rule."""
    (first, last), (other_first, other_last) = _around_dots(gold), _around_dots(prediction)
    if first is None or other_first is None or not _in_order(last, other_last):
        return False
    shorter, longer = sorted((first, other_first), key=len)
    if not _in_order(shorter, longer[: len(shorter)]):
        return False
    return len(shorter) == len(longer) or (len(shorter) >= 2 and _progresses([*longer]))


def _around_dots(items: Items[Answer]) -> tuple[Items[Answer] | None, Items[Answer]]:
    """What stands before and after the dots; ``None`` unless there are dots once."""
    places = [index for index, item in enumerate(items) if isinstance(item, Dots)]
    return (None, ()) if len(places) != 1 else (items[: places[0]], items[places[0] + 1 :])


def _progresses(items: list[Answer]) -> bool:
    """Whether the terms have one difference or one ratio."""
    terms = [expression_of(item) for item in items]
    if None in terms:
        return False
    pairs = list(pairwise(terms))
    differences = [after - before for before, after in pairs]
    if all(same_expression(difference, differences[0]) for difference in differences):
        return True
    ratios = [after / before for before, after in pairs if before != 0]
    return len(ratios) == len(pairs) and all(same_expression(ratio, ratios[0]) for ratio in ratios)


def _proportional(first: Items[Answer], second: Items[Answer]) -> bool:
    terms, others = [expression_of(item) for item in first], [expression_of(item) for item in second]
    if len(terms) != len(others) or None in terms or None in others:
        return False
    return all(
        same_expression(term * others[0], other * terms[0]) for term, other in zip(terms, others, strict=True)
    )


def _regions(gold: Answer, prediction: Answer) -> bool | None:
    if not isinstance(gold, Region) and not isinstance(prediction, Region):
        return None
    first, second = region_of(gold), region_of(prediction)
    return first is not None and second is not None and same_region(first, second)


def _relations(gold: Answer, prediction: Answer) -> bool | None:
    if isinstance(gold, Relation):
        return isinstance(prediction, Relation) and _same_relation(gold, prediction)
    if isinstance(prediction, Relation):
        return prediction.value is not None and same_answer(gold, prediction.value)
    return None


def _same_relation(gold: Relation | None, prediction: Relation | None) -> bool:
    """Whether one is a multiple of the other: by any constant for equations, by a positive one else."""
    if gold is None or prediction is None or gold.operator != prediction.operator:
        return False
    sign = proportion(gold.difference, prediction.difference)
    if gold.operator in ("<", "<="):
        return sign > 0
    return sign != 0 or proportion(numerator(gold.difference), numerator(prediction.difference)) != 0


def _clocks(gold: Answer, prediction: Answer) -> bool | None:
    """Times of day; where one has no am or pm, and is no later than 12:59, both halves of the day will do."""
    if isinstance(gold, Clock) and isinstance(prediction, Clock):
        bare = [clock for clock in (gold, prediction) if not clock.half]
        is_unclear = len(bare) == 1 and bare[0].minutes < _HALF_A_DAY + 60
        difference = abs(gold.minutes - prediction.minutes)
        return difference % (_HALF_A_DAY if is_unclear else 2 * _HALF_A_DAY) == 0
    for clock, other in ((gold, prediction), (prediction, gold)):
        if isinstance(clock, Clock):
            if not isinstance(other, Ratio) or clock.half or clock.minutes % 1:
                return False
            terms = (Number(Fraction(part)) for part in divmod(int(clock.minutes), 60))
            return _proportional(tuple(terms), other.terms)
    return None


def _expressions(gold: Answer, prediction: Answer) -> bool:
    """Numbers, formulas, ratios as quotients, and numbers in other bases."""
    if isinstance(gold, Based) or isinstance(prediction, Based):
        return _bases(gold, prediction)
    expressions = [_quotient(answer) for answer in (gold, prediction)]
    if None in expressions:
        return (
            isinstance(gold, Formula)
            and isinstance(prediction, Formula)
            and same_expression(gold.expression, prediction.expression)
        )
    # A number knows how precisely it was written, which its expression does not.
    values = [
        answer if isinstance(answer, Number) else constant(expression)
        for answer, expression in zip((gold, prediction), expressions, strict=True)
    ]
    if values[0] is None or values[1] is None:
        return same_expression(*expressions)
    return same_number(values[0], values[1])


def _bases(gold: Answer, prediction: Answer) -> bool:
    """``101_2`` and the same digits without a base; other bases were unequal before."""
    for based, other in ((gold, prediction), (prediction, gold)):
        if isinstance(based, Based) and isinstance(other, Number):
            return number_text(other.value) == based.digits
    return False


def _quotient(answer: Answer) -> Any:
    if isinstance(answer, Ratio) and len(answer.terms) == 2:
        terms = [expression_of(term) for term in answer.terms]
        return None if None in terms or terms[1] == 0 else terms[0] / terms[1]
    return expression_of(answer)

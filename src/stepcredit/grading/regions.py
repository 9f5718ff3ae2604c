"""Sets of real numbers: intervals, unions, and what inequalities hold for."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

from stepcredit.grading.answers import Answer, Assignment, Formula, Region, Relation, Sequence, Unread
from stepcredit.grading.formulas import parsed, same_expression
from stepcredit.grading.numbers import Number
from stepcredit.grading.splitting import split_at

_TURNED = {">": "<", r"\ge": r"\le"}
_NAMES = {"<": "<", r"\le": "<=", r"\ne": "!=", "=": "="}
_OPERATOR = re.compile(r"(\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|<|>|=)")


def expression_of(answer: Answer | None) -> Any:
    """A number or formula as a sympy expression, ``None`` for other answers."""
    import sympy  # type: ignore[import-untyped]

    if isinstance(answer, Number):
        return sympy.Rational(answer.value.numerator, answer.value.denominator)
    if isinstance(answer, Formula) and isinstance(answer.expression, sympy.Expr):
        return answer.expression
    return None


def region_of(answer: Answer | str) -> Any:
    """The set of numbers that an answer stands for, ``None`` if it stands for none."""
    import sympy

    match answer:
        case "everything":
            return sympy.S.Reals
        case "nothing":
            return sympy.S.EmptySet
        case Region():
            return answer.points
        case Assignment():
            return region_of(answer.value)
        case Sequence(kind="row") if len(answer.items) == 2:
            ends = [expression_of(item) for item in answer.items]
            if None in ends:
                return None
            try:
                return sympy.Interval(*ends, answer.brackets[0] == "(", answer.brackets[1] == ")")
            except (TypeError, ValueError):
                return None
        case Sequence(kind="list") if all(isinstance(item, Region) for item in answer.items):
            return _apart([item.points for item in answer.items if isinstance(item, Region)])
        case Sequence(kind="set") | Sequence(kind="list"):
            points = [expression_of(item) for item in answer.items]
            return None if None in points else sympy.FiniteSet(*points)
        case Number() | Formula():
            point = expression_of(answer)
            return None if point is None else sympy.FiniteSet(point)
    return None


def _apart(regions: list[Any]) -> Any:
    """The union of sets that have no point in common; else a comma may mean "and" as well as "or"."""
    import sympy

    try:
        apart = all(sympy.Intersection(*pair) == sympy.S.EmptySet for pair in combinations(regions, 2))
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    return sympy.Union(*regions) if apart else None


def solution_of(text: str) -> Answer | None:
    r"""An inequality or chain of them: where it holds if it has one symbol, else the relation itself."""
    import sympy

    pieces = _OPERATOR.split(text)
    sides, operators = pieces[::2], pieces[1::2]
    expressions = [parsed(side.strip()) for side in sides]
    if not all(isinstance(expression, sympy.Expr) for expression in expressions):
        names = split_at(sides[0], [","])  # x, y > 0
        return None if len(names) < 2 else Unread(text)
    relations = []
    for left, operator, right in zip(expressions, operators, expressions[1:], strict=False):
        if operator in _TURNED:
            left, operator, right = right, _TURNED[operator], left
        relations.append(Relation(_NAMES[operator], left - right))
    symbols = set().union(*(relation.difference.free_symbols for relation in relations))
    if len(symbols) == 1:
        region = _solved(relations)
        if region is not None:
            return Region(region)
    return relations[0] if len(relations) == 1 else Sequence("row", tuple(relations), "<>")


def _solved(relations: list[Relation]) -> Any:
    import sympy

    region = sympy.S.Reals
    for relation in relations:
        kinds = {"<": sympy.Lt, "<=": sympy.Le, "!=": sympy.Ne, "=": sympy.Eq}
        try:
            condition = kinds[relation.operator](relation.difference, 0)
            holds = (
                sympy.S.Reals
                if condition == sympy.true
                else sympy.S.EmptySet
                if condition == sympy.false
                else condition.as_set()
            )
            region = sympy.Intersection(region, holds)
        except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
            return None
    return region


def same_region(first: Any, second: Any) -> bool:
    """Whether two sets have the same points: piece by piece, their ends compared by value."""
    import sympy

    if first == second:
        return True
    pieces, others = _pieces(first), _pieces(second)
    if pieces is None or others is None:
        try:
            return bool(sympy.SymmetricDifference(first, second).is_empty)
        except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
            return False
    return len(pieces) == len(others) and all(
        opens == other_opens and all(map(same_expression, ends, other_ends))
        for (ends, opens), (other_ends, other_opens) in zip(pieces, others, strict=True)
    )


def _pieces(region: Any) -> list[tuple[tuple[Any, Any], tuple[bool, bool]]] | None:
    """Intervals and points in order, each by its two ends and whether they are left out."""
    import sympy

    try:
        if isinstance(region, sympy.Complement):
            region = region.doit()
        members = region.args if isinstance(region, sympy.Union) else (region,)
        pieces: list[tuple[tuple[Any, Any], tuple[bool, bool]]] = []
        for member in members:
            if isinstance(member, sympy.FiniteSet):
                pieces += [((point, point), (False, False)) for point in member.args]
            elif isinstance(member, sympy.Interval):
                pieces.append(((member.start, member.end), (bool(member.left_open), bool(member.right_open))))
            else:
                return None
        return sorted(pieces, key=lambda piece: float(piece[0][0].evalf()))
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return None

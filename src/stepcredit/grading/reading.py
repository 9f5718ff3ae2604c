r"""From text to an answer: the structure first (choices, lists, relations, units), formulas last.

What no reader takes as a whole is :class:`~stepcredit.grading.answers.Unread`, never a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from stepcredit.grading.answers import (
    Answer,
    Assignment,
    Choice,
    Dots,
    Formula,
    Matrix,
    Region,
    Relation,
    Sequence,
    Unread,
    Words,
)
from stepcredit.grading.formulas import parsed
from stepcredit.grading.notation import normalized
from stepcredit.grading.numbers import read_number
from stepcredit.grading.quantities import read_quantity, read_sum
from stepcredit.grading.regions import region_of, solution_of
from stepcredit.grading.splitting import enclosed, split_at, split_once

_CHOICE = re.compile(
    r"\(?(?P<letter>[A-J])(?:\)[.:]?|\.(?!\d)|:(?=\s))(?:\s*(?P<value>\S.*))?"
    r"|\((?P<small>[a-j])\)(?P<rest>\s+\S.*)?|(?i:option|choice)\s+\(?(?P<named>[A-Ja-j])\)?"
)
_GOES_ON = re.compile(r"\s*(?:[-+*/^=<>_,]|\\(?:cdot|times|cup|cap|le|ge|in|ne|div)\b)")
_DOMAIN = re.compile(
    r"(?:[,;]\s*|\(|\s+(?=where|for|with))(?:where\s+|for\s+(?:all\s+|any\s+)?|with\s+)?\(?[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*"
    r"(?:\\in\s*\\mathbb\{[A-Z]\}(?:\^?[+*]|_\{[^{}]*\})?"
    r"|(?:is|are)\s+(?:an?\s+|any\s+)?(?:integers?|real(?: numbers?)?|constants?))\)?$"
)
_PREFACE = re.compile(
    r"(?:(?:the\s+)?(?:final\s+)?answers?(?:\s+is|\s+are)?\s*:?\s+)?"
    r"(?:(?:approximately|about|roughly|around|exactly|nearly|simply|just|only|a total of|equal to"
    r"|\\approx|=)\s*)?",
    re.IGNORECASE,
)
_MATRIX = re.compile(r"\\begin\s*\{([pbB]?matrix|array)\}(?:\{[clr|\s]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_OUTER_BRACKETS = re.compile(r"^[\[(]\s*(?=\\begin\s*\{(?:matrix|array)\})|(?<=\})\s*[\])]$")
_EVERYTHING = re.compile(r"(?:the set of )?(?:all )?(?:the )?real(?: number)?s?(?: numbers)?|\\mathbb\{R\}")
_NOTHING = re.compile(
    r"(?:there (?:is|are) )?no(?: real)? (?:solutions?|roots?)(?: exists?)?|none|\\emptyset|\\\{\s*\\\}"
    r"|(?:the )?empty set"
)
_LEFT_SIDE = re.compile(
    r"\\?[A-Za-z]+'*(?:_\{?\w+\}?)?(?:\s*\([\w,\s\\]*\)|\^\{?-1\}?\s*\([\w,\s\\]*\))?|[A-Za-z][A-Za-z\s]*"
    r"|\([A-Za-z](?:\s*,\s*[A-Za-z])+\)|\\(?:vec|overline|bar|hat)\s*\{[A-Za-z]+\}"
    r"|(?:m\s*)?\\(?:angle|triangle)\s*[A-Z]{1,3}|\[[A-Z]{3,}\]|(?:P|Pr|E|Var)\s*\([^()]*\)|\\frac\{dy\}\{dx\}"
    r"|\\begin\s*\{[pb]matrix\}[A-Za-z_\d\s\\&]*\\end\s*\{[pb]matrix\}"
    r"|\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\\[a-z]+|[A-Z])"
)
_OPERATORS = [r"\approx", r"\le", r"\ge", r"\ne", r"\in", "<", ">", "="]
_SHORT_WORDS = re.compile(r"yes|no|odd|even|true|all|both|[ap]m|mon|tue|wed|thu|fri|sat|sun|n/a|dne")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")
_ROWS = {brackets: brackets for brackets in ("()", "[]", "(]", "[)")} | {r"\langle\rangle": "()", "][": "()"}
_THOUSANDS = re.compile(r"^\s*[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*$")
_DEEPEST = 12


@lru_cache(maxsize=4096)
def read(text: str) -> Answer:
    """Read an answer as a user or a data set wrote it."""
    text = normalized(text)
    preface = _PREFACE.match(text)
    return _read(text[preface.end() :] if preface else text, 0)


def _read(text: str, depth: int) -> Answer:
    text = text.strip()
    if not text or depth > _DEEPEST:
        return Unread(text)
    if (number := read_number(text)) is not None:
        return number
    for reader in _READERS:
        answer = reader(text, depth + 1)
        if answer is not None:
            return answer
    return read_quantity(text) or Unread(text)


def _items(pieces: Iterable[str], depth: int) -> tuple[Answer, ...]:
    """Answers that stand side by side; those of a plus-minus sign each have their place."""
    items: list[Answer] = []
    for piece in pieces:
        item = Dots() if piece.strip() == r"\ldots" else _read(piece, depth)
        items.extend(item.items if isinstance(item, Sequence) and item.kind == "list" else (item,))
    return tuple(items)


def _read_choice(text: str, depth: int) -> Answer | None:
    match = _CHOICE.fullmatch(text) if depth <= 2 else None
    if match is None:
        return None
    letter = (match["letter"] or match["small"] or match["named"]).upper()
    value = match["value"] or match["rest"]
    if value is None:
        return Choice(letter, None)
    return None if _GOES_ON.match(value) else Choice(letter, _read(value, depth))


def _read_words(text: str, _: int) -> Answer | None:
    """Text without digits and mathematics."""
    if _EVERYTHING.fullmatch(text.lower() if text[0] != "\\" else text):
        return Region(region_of("everything"))
    if _NOTHING.fullmatch(text.lower()):
        return Region(region_of("nothing"))
    if any(character.isdigit() for character in text) or not re.fullmatch(r"[^\\^_{}=<>|+*]*", text):
        return None
    if re.search(r"[A-Za-z]{4,}", text) or re.search(r"[^\x00-\x7f]", text):
        words = " ".join(re.sub(r"\s*([,;/:-])\s*", r"\1 ", text).split())
        return Words(words.lower().strip(" '."))
    short = text.lower().strip(" '.")
    return Words(short) if _SHORT_WORDS.fullmatch(short) else None


def _read_domain(text: str, depth: int) -> Answer | None:
    """``5k+2, k in Z``: the domain of the parameter is understood."""
    match = _DOMAIN.search(text)
    return None if match is None or not match.start() else _read(text[: match.start()].rstrip(" ,;"), depth)


def _read_region(text: str, depth: int) -> Answer | None:
    """Unions, differences and intersections of sets, and inequalities joined by "or" and "and"."""
    for operator in (r"\setminus", r"\cup", r"\cap"):
        pieces = split_at(text, [operator])
        if len(pieces) > 1:
            regions = [region_of(_read(piece, depth)) for piece in pieces]
            return Unread(text) if None in regions else _combined(operator, regions)
    for words, operator in ((r"\bor\b|\\lor|\\vee", r"\cup"), (r"\band\b|\\land|\\wedge", r"\cap")):
        pieces = [piece for piece in re.split(rf",?\s*(?:{words})\s*", text) if piece]
        if len(pieces) > 1 and all(re.search(r"[<>]|\\le\b|\\ge\b|\\ne\b|\\in\b", piece) for piece in pieces):
            regions = [region_of(_read(piece, depth)) for piece in pieces]
            return Unread(text) if None in regions else _combined(operator, regions)
    return None


def _combined(operator: str, regions: list[Any]) -> Region:
    import sympy  # type: ignore[import-untyped]

    if operator == r"\setminus":
        return Region(sympy.Complement(regions[0], sympy.Union(*regions[1:])))
    return Region((sympy.Union if operator == r"\cup" else sympy.Intersection)(*regions))


def _read_list(text: str, depth: int) -> Answer | None:
    if (total := read_sum(text)) is not None:
        return total
    pieces = split_at(text, [",", ";", r"\bor\b", r"\band\b"], words=True)
    if len(pieces) < 2:
        return _read_plus_minus(text, depth) if len(_PLUS_MINUS.findall(text)) == 1 else None
    return Sequence("list", _items(pieces, depth))


def _read_plus_minus(text: str, depth: int) -> Answer | None:
    before, after = _PLUS_MINUS.split(text)
    is_sign = not before.strip() or before.rstrip()[-1] in "=(,{"
    first, second = _read(before + ("" if is_sign else "+") + after, depth), _read(f"{before}-{after}", depth)
    if isinstance(first, Assignment) and isinstance(second, Assignment):
        return Assignment(first.name, Sequence("list", (first.value, second.value)), None)
    return Sequence("list", (first, second))


def _read_bracketed(text: str, depth: int) -> Answer | None:
    inside = enclosed(text)
    if inside is None:
        return None
    opening, inner, closing = inside
    if opening == r"\{":
        return _read_set(inner, depth)
    pieces = _in_brackets(inner)
    if len(pieces) == 1:
        return _read(inner, depth) if opening + closing == "()" else None
    brackets = _ROWS.get(opening + closing)
    return None if brackets is None else _read_row(text, pieces, brackets, depth)


def _read_row(text: str, pieces: list[str], brackets: str, depth: int) -> Answer:
    r"""A point or interval; one per answer where a coordinate has several: ``(\pm 1, 0)``."""
    items = [Dots() if piece.strip() == r"\ldots" else _read(piece, depth) for piece in pieces]
    several = [
        (index, item.items)
        for index, item in enumerate(items)
        if isinstance(item, Sequence) and item.kind == "list"
    ]
    if not several:
        return Sequence("row", tuple(items), brackets)
    if len(several) > 1:
        return Unread(text)
    ((place, values),) = several
    return Sequence(
        "list",
        tuple(Sequence("row", (*items[:place], value, *items[place + 1 :]), brackets) for value in values),
    )


def _read_set(inner: str, depth: int) -> Answer | None:
    """Elements, or a condition: ``{x | x > 2}``."""
    split = split_once(inner, [r"\mid", "|", ":"])
    if split is not None:
        variable, _, condition = split
        whole = _read(condition, depth)
        outer = split_once(variable, [r"\in"])
        region = region_of(whole)
        if region is None or not re.fullmatch(r"\s*\\?[A-Za-z]+\s*", outer[0] if outer else variable):
            return Unread(inner)
        within = region_of(_read(outer[2], depth)) if outer else region_of("everything")
        return Unread(inner) if within is None else _combined(r"\cap", [region, within])
    return Sequence("set", _items(_in_brackets(inner), depth))


def _in_brackets(inner: str) -> list[str]:
    """What commas separate in brackets: ``(100,200)`` has two; ``(1,000, 2,000)`` has thousands."""
    pieces = split_at(inner, [",", ";"])
    if any(_THOUSANDS.search(piece) for piece in pieces) and not re.search(r"[,;]\s|;|,0\d\d", inner):
        pieces = [
            part for piece in pieces for part in (piece.split(",") if _THOUSANDS.search(piece) else [piece])
        ]
    return pieces


def _read_relation(text: str, depth: int) -> Answer | None:
    split = split_once(text, _OPERATORS)
    if split is None:
        return None
    left, operator, right = split
    if operator not in ("=", r"\approx", r"\in"):
        return solution_of(text)
    chain = [right] if operator == r"\in" else split_at(right, ["=", r"\approx"])
    value = _read(chain[-1], depth)
    relation = _equation(left, right) if operator == "=" and len(chain) == 1 else None
    if _LEFT_SIDE.fullmatch(left.strip()):
        return Assignment(re.sub(r"\s", "", left), value, relation)
    if operator == r"\approx":
        return _read(left, depth)
    name = parsed(left.strip()) if operator == "=" else None
    if name is not None and not getattr(name, "free_symbols", True):
        if not (isinstance(value, Formula) and value.expression.free_symbols):
            return value  # a calculation: 3 + 4 = 7
        if len(chain) == 1 and _LEFT_SIDE.fullmatch(right.strip()):
            return Assignment(re.sub(r"\s", "", right), _read(left, depth), relation)  # 5 = x
    if relation is None:
        return None
    return Relation("=", relation.difference, None if right.strip() == "0" else value)


def _equation(left: str, right: str) -> Relation | None:
    import sympy

    sides = parsed(left.strip()), parsed(right.strip())
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return None
    return Relation("=", sides[0] - sides[1])


def _read_matrix(text: str, depth: int) -> Answer | None:
    match = _MATRIX.fullmatch(_OUTER_BRACKETS.sub("", text))
    if match is None or r"\begin" in match[2]:
        return None
    rows = [row for row in match[2].split(r"\\") if row.strip()]
    return Matrix(tuple(tuple(_read(entry, depth) for entry in row.split("&")) for row in rows))


_READERS: tuple[Callable[[str, int], Answer | None], ...] = (
    _read_choice,
    _read_words,
    _read_domain,
    _read_matrix,
    _read_region,
    _read_bracketed,
    _read_list,
    _read_relation,
)

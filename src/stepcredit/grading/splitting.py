"""Where a text can be split: outside brackets, at commas, words or signs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_OPENING, _CLOSING = "([{", ")]}"
_TOKEN = re.compile(
    r"\\langle|\\rangle|\\begin\s*\{[^{}]*\}|\\end\s*\{[^{}]*\}|\\\\|\\\{|\\\}|\\[A-Za-z]+|\d{1,3}(?:,\d{3})+(?!\d)|[A-Za-z]+|."
)


def _tokens(text: str) -> Iterable[tuple[int, str, int]]:
    """Position, text, and depth of brackets of each token; a bracket has the depth outside it."""
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        is_opening = token in _OPENING or token in (r"\{", r"\langle") or token.startswith(r"\begin")
        is_closing = token in _CLOSING or token in (r"\}", r"\rangle") or token.startswith(r"\end")
        if is_closing:
            depth -= 1
        yield match.start(), token, depth
        if is_opening:
            depth += 1


@lru_cache(maxsize=4096)
def _separators(separators: tuple[str, ...]) -> frozenset[str]:
    return frozenset(separator.replace(r"\b", "") for separator in separators)


def split_at(text: str, separators: Sequence[str], *, words: bool = False) -> list[str]:
    r"""Pieces between separators that stand outside all brackets; commas inside numbers separate nothing.

    Args:
        text: Text in the spelling of :mod:`~stepcredit.grading.notation`.
        separators: Signs, commands, or (with ``words``) words.
        words: Drop empty pieces, so that ``1, and 2`` has two.
    """
    wanted = _separators(tuple(separators))
    pieces, start = [], 0
    for position, token, depth in _tokens(text):
        if depth == 0 and token in wanted:
            pieces.append(text[start:position])
            start = position + len(token)
    pieces.append(text[start:])
    return [piece for piece in pieces if piece.strip()] if words else pieces


def split_once(text: str, separators: Sequence[str]) -> tuple[str, str, str] | None:
    """Text before and after the first of the separators outside all brackets, with the separator."""
    wanted = _separators(tuple(separators))
    for position, token, depth in _tokens(text):
        if depth == 0 and token in wanted:
            return text[:position], token, text[position + len(token) :]
    return None


def enclosed(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, inside and closing bracket, where one pair encloses the whole text."""
    tokens = list(_tokens(text))
    if len(tokens) < 2:
        return None
    (_, opening, _), (end, closing, _) = tokens[0], tokens[-1]
    if opening == "]" and closing == "[" and len(tokens) > 2:  # ]1, 2[: an open interval
        return opening, text[1:end], closing
    if opening not in ("(", "[", r"\{", r"\langle") or closing not in (")", "]", r"\}", r"\rangle"):
        return None
    if any(depth < 1 for _, _, depth in tokens[1:-1]) or tokens[-1][2] != 0:
        return None
    return opening, text[len(opening) : end], closing

"""Words that every message needs: counts with their nouns, and the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def quantity(number: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: ``1 rollout``, ``12,800 rollouts``, ``0 wrong prefixes``.

    Args:
        noun: Singular; of several words the last one takes the ending (``wrong step``).
        plural: Where it is not formed by rule.
    """
    return f"{number:,} {agree(number, noun, plural)}"


def every(number: int, noun: str, plural: str | None = None) -> str:
    """All of a number of things, as the subject of a sentence: ``the only prompt``, ``all 12 prompts``.

    Args:
        noun: Singular, as in :func:`quantity`.
        plural: Where it is not formed by rule.
    """
    return f"the only {noun}" if number == 1 else f"all {quantity(number, noun, plural)}"


def agree(number: int, singular: str, plural: str | None = None) -> str:
    """The word that agrees with a number: a noun, a verb (``differs``, ``differ``) or a pronoun.

    Args:
        plural: For all other numbers; by rule where it is not given, which is right for nouns only.
    """
    if number == 1:
        return singular
    return _plural(singular) if plural is None else plural


def suggestion(name: str, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """A hint where a name is not known: the one that was probably meant.

    Args:
        otherwise: The hint where none is close; by default the list of all names, empty for no hint.
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return (f"use {', '.join(names)}" if otherwise is None else otherwise) or None


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return noun[:-1] + "ies"
    return noun + "s"

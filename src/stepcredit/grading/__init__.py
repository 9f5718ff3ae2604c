"""Does the response's answer equal the reference answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepcredit.grading.base import CRASHED, TIMEOUT, UNREAD, Grade, Grader, GradingItem
    from stepcredit.grading.registry import GRADERS, make_grader

__all__ = ["CRASHED", "GRADERS", "TIMEOUT", "UNREAD", "Grade", "Grader", "GradingItem", "make_grader"]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that programs under test start fast."""
    if name not in __all__:
        raise AttributeError(f"module 'stepcredit.grading' has no attribute {name!r}")
    from stepcredit.grading import base, registry

    return getattr(registry if name in ("GRADERS", "make_grader") else base, name)

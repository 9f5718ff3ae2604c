"""stepcredit: process rewards for reasoning, from answer labels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepcredit.api import evaluate_best_of_n, evaluate_steps, grade, sample, score, search, train
    from stepcredit.errors import UserError
    from stepcredit.scorers import load_scorer
    from stepcredit.scorers.implicit import ImplicitPRM
    from stepcredit.types import Prompt, ResponseScore, Rollout

__all__ = [
    "ImplicitPRM",
    "Prompt",
    "ResponseScore",
    "Rollout",
    "UserError",
    "__version__",
    "evaluate_best_of_n",
    "evaluate_steps",
    "grade",
    "load_scorer",
    "sample",
    "score",
    "search",
    "train",
]

__version__ = "0.1.0"

_HOMES = {
    "ImplicitPRM": "stepcredit.scorers.implicit",
    "UserError": "stepcredit.errors",
    "load_scorer": "stepcredit.scorers",
    **dict.fromkeys(("Prompt", "ResponseScore", "Rollout"), "stepcredit.types"),
    **dict.fromkeys(
        ("evaluate_best_of_n", "evaluate_steps", "grade", "sample", "score", "search", "train"),
        "stepcredit.api",
    ),
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that the command line starts fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stepcredit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

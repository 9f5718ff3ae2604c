"""Scorers: every kind of reward model behind one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepcredit.scorers.base import Judgement, ResponseScorer, WindowedScorer
    from stepcredit.scorers.implicit import ImplicitPRM
    from stepcredit.scorers.kinds import FAMILIES, load_scorer
    from stepcredit.scorers.log_probability import LogProbabilityScorer
    from stepcredit.scorers.step_models import StepModelScorer

__all__ = [
    "FAMILIES",
    "ImplicitPRM",
    "Judgement",
    "LogProbabilityScorer",
    "ResponseScorer",
    "StepModelScorer",
    "WindowedScorer",
    "load_scorer",
]

_HOMES = {
    "FAMILIES": "kinds",
    "ImplicitPRM": "implicit",
    "Judgement": "base",
    "LogProbabilityScorer": "log_probability",
    "ResponseScorer": "base",
    "StepModelScorer": "step_models",
    "WindowedScorer": "base",
    "load_scorer": "kinds",
}


def __getattr__(name: str) -> Any:
    """Import names on first use: the options live here too, and the command line starts fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stepcredit.scorers' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"stepcredit.scorers.{_HOMES[name]}"), name)

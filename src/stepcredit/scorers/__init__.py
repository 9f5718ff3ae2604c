"""Scorers: every kind of reward model behind one protocol."""

from stepcredit.scorers.base import Judgement, WindowedScorer
from stepcredit.scorers.families import FAMILIES, load_scorer
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.log_probability import LogProbabilityScorer
from stepcredit.scorers.step_models import StepModelScorer

__all__ = [
    "FAMILIES",
    "ImplicitPRM",
    "Judgement",
    "LogProbabilityScorer",
    "StepModelScorer",
    "WindowedScorer",
    "load_scorer",
]

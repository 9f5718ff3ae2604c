"""Scorers: every kind of reward model behind one protocol."""

from stepcredit.scorers.kinds import load_scorer

__all__ = ["load_scorer"]

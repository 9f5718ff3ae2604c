"""Scorers: every kind of reward model behind one protocol."""

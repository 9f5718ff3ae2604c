"""Comparisons of reward models: what is compared, and what was found."""

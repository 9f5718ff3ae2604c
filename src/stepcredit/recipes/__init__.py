"""Shipped configurations, each a YAML file that ``stepcredit train --config NAME`` reads.

Those in ``comparisons/`` are what ``stepcredit compare NAME`` reads.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def recipe_names() -> tuple[str, ...]:
    """Names of all recipes."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.yaml")))


def recipe_path(name: str) -> Path | None:
    """The file of the recipe called ``name``; ``None`` if there is none."""
    path = _HERE / f"{name}.yaml"
    return path if path.is_file() else None


def comparison_names() -> tuple[str, ...]:
    """Names of all comparisons."""
    return tuple(sorted(path.stem for path in (_HERE / "comparisons").glob("*.yaml")))


def comparison_path(name: str) -> Path | None:
    """The file of the comparison called ``name``; ``None`` if there is none."""
    path = _HERE / "comparisons" / f"{name}.yaml"
    return path if path.is_file() else None

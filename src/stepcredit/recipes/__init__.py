"""Shipped configurations, each a YAML file that ``stepcredit train --config NAME`` reads.

Those in ``comparisons/`` are what ``stepcredit compare NAME`` reads, and those in ``judges/`` what a
generative reward model is asked (``--judge NAME``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit.wording import suggestion

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


def judge_names() -> tuple[str, ...]:
    """Names of all judges."""
    return tuple(sorted(path.stem for path in (_HERE / "judges").glob("*.yaml")))


def judge_path(name: str) -> Path | None:
    """The file of the judge called ``name``; ``None`` if there is none."""
    path = _HERE / "judges" / f"{name}.yaml"
    return path if path.is_file() else None


def read_settings(path: Path, shipped: Callable[[str], Path | None], names: Sequence[str]) -> dict[str, Any]:
    """The settings of a YAML file, or of the shipped one of that name.

    Args:
        shipped: Gives the file of a name, as :func:`recipe_path`.

    Raises:
        UserError: It cannot be read or does not hold settings, with its line.
    """
    import yaml

    file = path if path.exists() else shipped(str(path)) or path
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError("is not valid UTF-8", where=file, hint="save it as UTF-8") from error
    except OSError as error:
        known = f"check the path, or use one that ships: {', '.join(names)}"
        raise UserError("cannot be read", where=file, hint=suggestion(str(path), names, known)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        problem = getattr(error, "problem", None)
        raise UserError(f"is not YAML{f' ({problem})' if problem else ''}", where=f"{file}{line}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError("must hold 'name: value' lines", where=file)
    return content

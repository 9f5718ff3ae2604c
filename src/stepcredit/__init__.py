"""stepcredit: process rewards for reasoning, from answer labels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepcredit.errors import UserError
    from stepcredit.scorers.implicit import ImplicitPRM

__all__ = ["ImplicitPRM", "UserError", "__version__"]

__version__ = "0.1.0"

_HOMES = {"ImplicitPRM": "stepcredit.scorers.implicit", "UserError": "stepcredit.errors"}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that the command line starts fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stepcredit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

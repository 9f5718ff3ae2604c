"""Data sets of the Hugging Face hub as streams of rows: ``hub:NAME``, ``hub:NAME:SPLIT``."""

from __future__ import annotations

from collections.abc import Iterator

from stepcredit.data.rows import NumberedRow, checked
from stepcredit.errors import DataError

PREFIX = "hub:"


def read_hub(source: str, subset: str | None = None) -> Iterator[NumberedRow]:
    """Stream a data set's rows; nothing but the rows at hand is held in memory.

    Args:
        source: ``hub:NAME`` or ``hub:NAME:SPLIT``; the split is ``train`` unless named.
        subset: The data set's configuration, where it has several.

    Raises:
        DataError: There is no such data set, subset or split, or it cannot be reached.
    """
    from datasets import load_dataset

    name, _, split = source.removeprefix(PREFIX).partition(":")
    try:
        rows = load_dataset(name, subset, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield number, checked(row)
    except (OSError, ValueError, KeyError) as error:  # the library's own errors derive from these
        raise DataError(
            f"cannot be loaded ({type(error).__name__}: {error})",
            where=source,
            hint="check the name, --subset and the split, and that the hub can be reached",
        ) from error

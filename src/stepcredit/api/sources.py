"""What a function is given, as the file that its command reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stepcredit.data import prompt_to_json, rollout_to_json, score_to_json, write_rows
from stepcredit.data.rows import Malformed, checked
from stepcredit.errors import DataError, UserError
from stepcredit.types import Prompt, ResponseScore, Rollout

PathText = str | os.PathLike[str]

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

    Record = TypeVar("Record", Prompt, Rollout, ResponseScore)
    Source = PathText | Iterable[Record | Mapping[str, Any]] | Dataset | DataFrame
    """A file, or what else a command reads; records or dictionaries; a data set; or a frame of pandas."""


def is_path(source: Any) -> bool:
    """Whether a source names what a command can read itself; what a function returned does."""
    return isinstance(source, str | os.PathLike)


def write_source(source: Any, path: Path, argument: str) -> None:
    """Write rows that are in memory as JSON Lines.

    Args:
        source: Records, dictionaries, a data set or a frame; texts too, where prompts are wanted.

    Raises:
        DataError: A row is none.
        UserError: The source has no rows.
    """
    rows = _rows(source, argument)
    write_rows(path, (_row(row, f"{argument}[{number}]") for number, row in enumerate(rows)))


def _rows(source: Any, argument: str) -> Iterator[Any]:
    package = type(source).__module__.partition(".")[0]
    if package == "pandas" and hasattr(source, "columns"):
        # Arrow knows what is missing, which a frame holds as NaN.
        import pyarrow

        yield from pyarrow.Table.from_pandas(source, preserve_index=False).to_pylist()
    elif package == "datasets" and hasattr(source, "with_format"):
        yield from source.with_format(None)
    elif isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise UserError(
            f"is of type {type(source).__name__}, which has no rows",
            where=argument,
            hint="pass a file, a list of records or dictionaries, a Dataset or a DataFrame",
        )
    else:
        yield from source


def _row(row: Any, where: str) -> dict[str, Any]:
    if isinstance(row, Prompt):
        row = prompt_to_json(row)
    elif isinstance(row, Rollout):
        row = rollout_to_json(row)
    elif isinstance(row, ResponseScore):
        row = score_to_json(row)
    elif isinstance(row, str) and where.startswith("prompts["):
        row = {"prompt": row}
    if not isinstance(row, Mapping):
        raise DataError(
            f"is of type {type(row).__name__}",
            where=where,
            hint="pass a record of stepcredit or a dictionary",
        )
    plain = checked(row)
    if isinstance(plain, Malformed):
        raise DataError(plain.problem, where=where)
    return plain

"""The directory where a run's checkpoints lie until the model is finished."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from stepcredit.errors import UserError
from stepcredit.runs import atomic_path

_STAMP = "settings_hash"


def work_directory(out: Path) -> Path:
    """Where the checkpoints of the model that will lie at ``out`` are."""
    return out.with_name(out.name + ".partial")


@contextlib.contextmanager
def claim(work: Path, settings_hash: str, *, overwrite: bool) -> Iterator[None]:
    """Make ``work`` this run's for as long as the context lasts; the caller holds the output's lock.

    Args:
        settings_hash: Identifies the run; checkpoints of another are refused.

    Raises:
        UserError: It holds another run's checkpoints.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError("cannot be created as a directory", where=work, hint="name another --out") from error
    _prepare(work, settings_hash, overwrite=overwrite)
    try:
        yield
    except UserError:
        if not any(work.glob("checkpoint-*")):
            shutil.rmtree(work, ignore_errors=True)
        raise


def _prepare(work: Path, settings_hash: str, *, overwrite: bool) -> None:
    if overwrite:
        for earlier in work.iterdir():
            shutil.rmtree(earlier) if earlier.is_dir() else earlier.unlink()
    stamp = work / _STAMP
    if any(work.glob("checkpoint-*")) and (
        not stamp.is_file() or stamp.read_text(encoding="utf-8") != settings_hash
    ):
        raise UserError(
            "holds the start of a run with other settings or inputs",
            where=work,
            hint="run with the earlier settings to continue, or pass --overwrite to start over",
        )
    with atomic_path(stamp) as temporary:
        temporary.write_text(settings_hash, encoding="utf-8")

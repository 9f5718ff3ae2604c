"""The JSON files of a checkpoint, which may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepcredit.errors import CheckpointError


def read_object(file: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is not JSON, is nested too deeply, or holds no object.
    """
    try:
        content = json.loads(file.read_bytes())
    except RecursionError as error:
        raise CheckpointError("is nested too deeply", where=file, hint="restore it") from error
    except ValueError as error:
        raise CheckpointError(f"is not JSON ({error})", where=file, hint="restore it") from error
    if not isinstance(content, dict):
        raise CheckpointError("must be a JSON object", where=file, hint="restore it")
    return content

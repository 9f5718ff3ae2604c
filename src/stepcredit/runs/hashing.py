"""Content hashes: the names that files, settings and token sequences are known by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def hash_bytes(content: bytes) -> str:
    """SHA-256 of ``content`` as ``sha256:<64 hex digits>``."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def hash_json(value: Any) -> str:
    """Hash of a JSON-able value, independent of the order of its keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode())


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as handle:
        return "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()


def hash_path(path: str | Path) -> str:
    """Hash of a file's bytes; of a folder, of the names and bytes of all files in it."""
    path = Path(path)
    if not path.is_dir():
        return hash_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hash_json([[file.relative_to(path).as_posix(), hash_file(file)] for file in files])

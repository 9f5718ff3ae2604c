"""The manifest beside each output: what was run, with which settings, on which inputs."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stepcredit.runs.hashing import hash_file, hash_json, hash_path
from stepcredit.runs.ledger import Ledger
from stepcredit.runs.progress import warn
from stepcredit.wording import quantity

_FREE = ("manifest.json", "README.md")
"""Files of a folder that are not compared: what describes it, and what people may edit."""

_RECORDED_PACKAGES = ("stepcredit", "torch", "transformers", "accelerate", "peft", "datasets", "numpy")


def manifest_path(output: str | Path) -> Path:
    """Where the manifest of ``output`` lies: inside a directory, beside a file."""
    output = Path(output)
    return output / "manifest.json" if output.is_dir() else output.with_name(output.name + ".manifest.json")


def read_manifest(output: str | Path) -> dict[str, Any] | None:
    """The manifest of ``output``, or ``None`` if there is none that can be read."""
    try:
        content = json.loads(manifest_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if _is_manifest(content) else None


def _is_manifest(content: Any) -> bool:
    """Whether the parts that commands read back are what :meth:`Manifest.to_json` writes."""
    if not isinstance(content, dict) or not isinstance(content.get("counts"), dict):
        return False
    if any(type(number) is not int for number in content["counts"].values()):
        return False
    return isinstance(content.get("ledger"), dict) and _is_description(content.get("output"))


def _is_description(output: Any) -> bool:
    if output is None:
        return True
    if not isinstance(output, dict):
        return False
    files = output.get("files") if "files" in output else output.get("beside", {})
    if not isinstance(files, dict) or not all(map(_is_of_file, files.values())):
        return False
    return "files" in output or _is_of_file(output)


def _is_of_file(described: Any) -> bool:
    if not isinstance(described, dict):
        return False
    return type(described.get("bytes")) is int and isinstance(described.get("sha256"), str)


def describe(path: Path, beside: Sequence[Path] = ()) -> dict[str, Any]:
    """Size and hash of a file; of a folder, those of every file in it that its work determines.

    Args:
        beside: Files in a file's folder that belong to it.
    """
    if not path.is_dir():
        more = {"beside": {file.name: describe(file) for file in beside}} if beside else {}
        return {"bytes": path.stat().st_size, "sha256": hash_file(path).removeprefix("sha256:"), **more}
    return {"files": {name: describe(path / name) for name in _names(path)}}


def _names(folder: Path) -> list[str]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in _FREE)
    return sorted(file.relative_to(folder).as_posix() for file in files)


def added(folder: Path, described: Mapping[str, Any]) -> str | None:
    """A file in a folder of which :func:`describe` did not know, and which is no lock; ``None`` without."""
    unknown = (name for name in _names(folder) if name not in described["files"])
    return next((name for name in unknown if not name.endswith(".lock")), None)


def difference(path: Path, described: Mapping[str, Any]) -> str | None:
    """How ``path`` differs from what :func:`describe` said of it; ``None`` if it does not.

    Sizes are compared before contents, so that a file that was cut is noticed without reading it.
    """
    is_folder = "files" in described
    if not is_folder and (changed := _file_difference(path, described)):
        return f"it {changed}"
    folder = path if is_folder else path.parent
    for name, expected in described.get("files" if is_folder else "beside", {}).items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if changed := _file_difference(folder / name, expected):
            return f"{name} {changed}"
    return None


def _file_difference(path: Path, described: Mapping[str, Any]) -> str | None:
    size = path.stat().st_size
    if size != described["bytes"]:
        return f"has {quantity(size, 'byte')}, not the {described['bytes']:,} that were written"
    if hash_file(path) != "sha256:" + described["sha256"]:
        return "has different content from what was written"
    return None


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@cache
def _git_commit() -> str | None:
    """Commit of the checkout that the package runs from, if it runs from one."""
    here = Path(__file__).resolve().parent
    try:
        top = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return top if tracked.returncode == 0 else None


def run_facts() -> dict[str, Any]:
    """Versions of the packages and the git commit, as every manifest has them."""
    return {"versions": dict(_versions()), "git_commit": _git_commit()}


@dataclass(slots=True)
class Manifest:
    """Collects what a command did; :meth:`to_json` is what lands beside its output.

    Attributes:
        command: The command's name, e.g. ``sample``.
        settings: Everything that determines the output (resolved configuration), JSON-able.
        inputs: Files and folders that were read; their content hashes are recorded.
        added_settings: Dotted names of settings that earlier versions did not record. Where an earlier
            manifest lacks them the work is taken to be the same, with a warning.
        counts: What came in, what was left out and why, what came out.
        output: What the finished output holds, by :func:`describe`; ``None`` until it is there.
        seconds_before: Time that earlier parts of a resumed run took, where the command keeps it.
    """

    command: str
    settings: Mapping[str, Any]
    inputs: Sequence[str | Path] = ()
    added_settings: Sequence[str] = ()
    counts: dict[str, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    notes: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] | None = None
    seconds_before: float = 0.0
    _started: float = field(default_factory=time.time)
    _input_hashes: dict[str, str] | None = None

    @property
    def input_hashes(self) -> dict[str, str]:
        """Path to content hash, computed once; what is no path, as a data set of the hub, has none."""
        if self._input_hashes is None:
            self._input_hashes = {str(path): hash_path(path) for path in self.inputs if Path(path).exists()}
        return self._input_hashes

    @property
    def settings_hash(self) -> str:
        """Identifies the work: command, settings, and contents of the inputs in order (not their paths)."""
        return self._hash(self.settings)

    @property
    def earlier_hash(self) -> str:
        """What an earlier version would have called the work."""
        settings = json.loads(json.dumps(dict(self.settings), default=str))
        for name in self.added_settings:
            *parents, last = name.split(".")
            inner = settings
            for parent in parents:
                inner = inner.get(parent, {})
            inner.pop(last, None)
        return self._hash(settings)

    def _hash(self, settings: Mapping[str, Any]) -> str:
        # By role, that is in the order given: files that change places are other work.
        hashes = [self.input_hashes[str(path)] for path in self.inputs if str(path) in self.input_hashes]
        return hash_json([self.command, dict(settings), hashes])

    def is_of(self, settings_hash: object, where: Path) -> bool:
        """Whether an output or the start of one, whose manifest or stamp has this hash, is of this work."""
        if settings_hash == self.settings_hash:
            return True
        if not self.added_settings or settings_hash != self.earlier_hash:
            return False
        warn(
            f"{where}: its manifest does not record {', '.join(self.added_settings)}; they are "
            "assumed to be the same"
        )
        return True

    def count(self, what: str, by: int = 1) -> None:
        """Add ``by`` to the count called ``what``."""
        self.counts[what] = self.counts.get(what, 0) + by

    def to_json(self) -> dict[str, Any]:
        """The whole manifest as JSON-able values."""
        return {
            "command": self.command,
            "settings": dict(self.settings),
            "settings_hash": self.settings_hash,
            "inputs": self.input_hashes,
            "counts": self.counts,
            "ledger": self.ledger.to_json(),
            "output": self.output,
            **run_facts(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "wall_seconds": round(time.time() - self._started + self.seconds_before, 3),
            **self.notes,
        }

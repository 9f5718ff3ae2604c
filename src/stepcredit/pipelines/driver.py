"""The one driver of the loop: a stage is a command with its options, and is not run again where it is there.

A stage's output is found by the content of its inputs. Where the caller names it, the command itself compares
settings and contents with the manifest of what lies there, goes on from what is half done and refuses what is
of other work. Where the store names it, its name is a hash of the whole chain of commands behind it.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from stepcredit.errors import UserError
from stepcredit.options import arguments_of
from stepcredit.runs import hash_json, locked

_NOT_IN_NAME = {
    "--overwrite": 0,
    "--num-workers": 1,
    "--batch-samples": 1,
    "--batch-tokens": 1,
    "--concurrency": 1,
}
"""Flags that do not change what is written, and how many values each takes."""


class Runner(Protocol):
    """What becomes of a command that the store has no output of."""

    def __call__(self, command: str, options: Any) -> None:
        """Make ``options.out``."""
        ...


def run_here(command: str, options: Any) -> None:
    """Call the pipeline of the command in this process."""
    import_module("stepcredit.pipelines." + command.replace(" ", "_").replace("-", "_")).run(options)


@dataclass(frozen=True, slots=True)
class RunByCommand:
    """Runs each command in a process of its own.

    Attributes:
        launchers: Command to what stands before it, such as ``torchrun --nproc-per-node 8 -m stepcredit``;
            ``default`` for those not named.
    """

    launchers: Mapping[str, str]

    def __call__(self, command: str, options: Any) -> None:
        """Run it.

        Raises:
            UserError: It failed; its own message stands above.
        """
        line = command_line(command, options, self.launchers)
        print(f"$ {line}", file=sys.stderr, flush=True)
        # Programs of this installation are found although it is not activated.
        folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        try:
            code = subprocess.run(
                shlex.split(line), check=False, stdout=2, env=os.environ | {"PATH": folders}
            ).returncode
        except FileNotFoundError as error:
            raise UserError(
                f"there is no program {error.filename!r}",
                where=line,
                hint="install it, or change `launchers`",
            ) from error
        if code:
            raise UserError(f"a command failed with code {code}", where=line, hint="see its message above")


@dataclass(slots=True)
class Plan:
    """Runs nothing, and remembers what would be run.

    Attributes:
        steps: Commands and their options, in order.
    """

    steps: list[tuple[str, Any]] = field(default_factory=list)
    _made: set[Path] = field(default_factory=set)

    def __call__(self, command: str, options: Any) -> None:
        """Remember it, once."""
        if options.out not in self._made:
            self._made.add(options.out)
            self.steps.append((command, options))


def command_line(command: str, options: Any, launchers: Mapping[str, str]) -> str:
    """How the command is typed."""
    launcher = launchers.get(command, launchers.get("default", "stepcredit"))
    return f"{launcher} {command} {shlex.join(arguments_of(options))}"


class Store:
    """The outputs of one run or of many, in a folder.

    Those that it names lie in it under their command, a word, and a hash of everything that decides them.
    Inputs lie in the same folder under such names, so a name stands for the whole chain of commands, and
    an experiment that asks for what another one made finds it. Processes may share the folder: while one
    makes an output the others that want it wait.

    Args:
        runner: Makes what is not there.
        overwrite: Start anew, whatever lies where the caller names the output.
    """

    def __init__(self, root: Path, runner: Runner = run_here, *, overwrite: bool = False) -> None:
        self.root, self.overwrite, self._runner = root, overwrite, runner

    @property
    def is_planning(self) -> bool:
        """Whether nothing is made, so that no output can be read."""
        return isinstance(self._runner, Plan)

    def path(self, command: str, word: str, settings: Any, suffix: str) -> Path:
        """Where the output of these settings lies."""
        key = hash_json([command, settings]).removeprefix("sha256:")[:12]
        return self.root / command.replace(" ", "-") / f"{word}-{key}{suffix}"

    def run(self, command: str, options: Any) -> Path:
        """The output of a command at ``options.out``; the command itself knows whether it is there.

        Raises:
            UserError: Something else lies there and ``overwrite`` is off, or the command failed.
        """
        self._runner(command, replace(options, overwrite=self.overwrite))
        return Path(options.out)

    def make(self, command: str, word: str, options: Any, suffix: str = ".jsonl") -> Path:
        """The output of a command, which runs if it is not there.

        Args:
            word: Begins the output's name.
            options: The command's options; ``out`` is replaced.
            suffix: Of the output's name; empty for a directory.
        """
        out = self.path(command, word, self._plain(options), suffix)
        options = replace(options, out=out)
        if self.is_planning:
            self._runner(command, options)
            return out
        with self._turn(out):
            if not out.exists():
                self._runner(command, options)
        return out

    def write(self, out: Path, writer: Callable[[Path], None]) -> Path:
        """What no command makes: ``writer`` does if it is not there, at once or not at all."""
        if not self.is_planning:
            with self._turn(out):
                if not out.exists():
                    writer(out)
        return out

    def _turn(self, out: Path) -> AbstractContextManager[None]:
        """Wait for the right to make ``out``; beside it, because the command that makes it locks it too."""
        return locked(self.root / "locks" / f"{out.parent.name}-{out.name}", patience=math.inf)

    def _plain(self, options: Any) -> list[str]:
        """What decides the output: the arguments that are given, with paths relative to the store.

        So an option that a later version adds, and nobody gives, changes no name.
        """
        given = list(arguments_of(replace(options, out=Path())))
        kept: list[str] = []
        while given:
            argument = given.pop(0)
            if argument in _NOT_IN_NAME:
                del given[: _NOT_IN_NAME[argument]]
            else:
                kept.append(argument.removeprefix(f"{self.root}/"))
        return kept

"""The command line: parse, call, print.

Exit codes: 0 done, 1 a bug (with its traceback), 2 a mistake that the user can fix (in one line),
130 interrupted, 143 asked to end.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from stepcredit import __version__
from stepcredit.cli.commands import COMMANDS, GROUPS, Command
from stepcredit.cli.interrupts import Interrupts, say_interrupted
from stepcredit.cli.parser import OneLineParser, add_settings
from stepcredit.errors import UserError
from stepcredit.recipes import recipe_names
from stepcredit.settings import build
from stepcredit.wording import suggestion

_USER_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT,
    errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after ``stepcredit``; the process's own by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with Interrupts() as interrupts:
        try:
            return _run(words)
        except BaseException as error:
            if interrupts.received is not None:
                return say_interrupted(interrupts.received)
            return _end(error)


def _end(error: BaseException) -> int:
    """Report an error that the user can do something about; raise any other."""
    if isinstance(error, UserError):
        print(f"stepcredit: error: {error}", file=sys.stderr)
        return 2
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and error.errno in _USER_ERRNOS:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or type(error).__name__
        print(f"stepcredit: error: {where}{reason[0].lower()}{reason[1:]}", file=sys.stderr)
        return 2
    if isinstance(error, MemoryError):
        print("stepcredit: error: out of memory. Use smaller numbers or less data", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        return say_interrupted()
    raise error


def _run(words: list[str]) -> int:
    command, rest = _find(words)
    if command is None:
        return _no_command(words)
    module = _module_of(command)
    parser = OneLineParser(
        prog=f"stepcredit {command.name}",
        description=_without_markup(module.__doc__ or command.help),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE.yaml",
        help="read options from this file or, for train, from a shipped recipe "
        f"({', '.join(recipe_names())}); options on the command line override them",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON when the command ends")
    add_settings(parser, module.Options)
    given = vars(parser.parse_intermixed_args(rest))
    config, as_json = given.pop("config"), given.pop("json")
    result = module.run(build(module.Options, given, config))
    if as_json:
        print(json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        text = result.to_text()
        if text:
            print(text)
    return 0


def _module_of(command: Command) -> ModuleType:
    """Import a command's module, which may lie in a package beside the library."""
    package = command.module.partition(".")[0]
    if find_spec(package) is None:
        raise UserError(
            f"needs the package {package}, which is not installed",
            where=f"stepcredit {command.name}",
            hint="it is part of the source repository: run `pip install .` there",
        )
    return import_module(command.module)


def _without_markup(docstring: str) -> str:
    """A docstring as people read it: what it marks as code stands as it is typed."""
    return re.sub(r"``(.+?)``", r"\1", docstring, flags=re.DOTALL).strip()


def _find(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command that ``words`` begin with, and the words after it."""
    table = {tuple(command.name.split()): command for command in COMMANDS}
    for length in (2, 1):
        command = table.get(tuple(words[:length]))
        if command is not None:
            return command, list(words[length:])
    return None, list(words)


def _no_command(words: Sequence[str]) -> int:
    """Help, version, or an error where ``words`` name no command."""
    group = words[0] if words and words[0] in GROUPS else None
    rest = words[1:] if group else words
    if rest and not rest[0].startswith("-"):
        wanted = f"{group} {rest[0]}" if group else rest[0]
        names = [command.name for command in COMMANDS] + list(GROUPS)
        raise UserError(
            f"there is no command {wanted!r}", hint=suggestion(wanted, names, "see stepcredit --help")
        )
    commands = [command for command in COMMANDS if group is None or command.name.split()[0] == group]
    width = max(len(command.name) for command in commands)
    about = "Process rewards for reasoning, from answer labels alone." if group is None else GROUPS[group]
    parser = OneLineParser(
        prog="stepcredit",
        usage=" ".join(filter(None, ["stepcredit", group, "COMMAND [options]"])),
        description="\n".join(
            [about, "", "commands:", *(f"  {command.name:<{width}}  {command.help}" for command in commands)]
        ),
        epilog="stepcredit COMMAND --help shows a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stepcredit {__version__}")
    parser.parse_args(rest)
    parser.print_help()
    return 0

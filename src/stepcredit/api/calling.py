"""From a function's arguments to its command: inputs as files, keywords as options, errors about keywords."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from stepcredit.api.sources import is_path, write_source
from stepcredit.errors import UserError
from stepcredit.settings import Setting, build, match_names, settings_of

Fields = ParamSpec("Fields")
Made = TypeVar("Made")


class Workplace:
    """Where one call's files lie that the caller did not name: inputs that are in memory, and an output.

    The folder is made when it is needed, and removed with the last object that holds the workplace.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._arguments: dict[str, str] = {}

    def holds(self, path: Path) -> bool:
        """Whether a file lies here, so that nobody else knows of it."""
        return self._folder is not None and path.is_relative_to(self._folder)

    @property
    def folder(self) -> Path:
        """A folder of this call's own."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="stepcredit-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def file(self, source: Any, argument: str, name: str | None = None) -> str:
        """The path of a source, which is written if it is in memory.

        Args:
            name: Of its file, without extension.
        """
        if is_path(source):
            return str(os.fspath(source))
        path = self.folder / "inputs" / f"{name or argument}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_source(source, path, argument)
        self._arguments[str(path)] = argument
        return str(path)

    def output(self, out: str | os.PathLike[str] | None, name: str) -> Path:
        """Where the output lies: where the caller says, or under a name in this folder."""
        return self.folder / name if out is None else Path(out)

    def files(self, sources: Mapping[str, Any] | None, argument: str) -> tuple[str, ...]:
        """``NAME=FILE`` of each named source.

        Raises:
            UserError: They are not named, or a name has an equals sign.
        """
        if sources is None:
            return ()
        if not isinstance(sources, Mapping):
            raise UserError(
                "is not a mapping from names to sources",
                where=argument,
                hint=f"write {argument}={{'prm': ...}}",
            )
        if wrong := [name for name in sources if "=" in name]:
            raise UserError(f"the name {wrong[0]!r} has an equals sign", where=argument)
        return tuple(
            f"{name}={self.file(source, f'{argument}[{name!r}]', f'{argument}-{number}')}"
            for number, (name, source) in enumerate(sources.items())
        )

    def run(
        self,
        command: ModuleType,
        caller: Callable[..., Any],
        given: Mapping[str, Any],
        keywords: Mapping[str, Any],
        config: str | os.PathLike[str] | None,
    ) -> Any:
        """Call a command.

        Args:
            command: Its pipeline, with ``Options`` and ``run``.
            caller: The function that takes ``keywords``, for messages.
            given: Options that the function makes of its own arguments; ``None`` is not given.
            keywords: Options that the caller gave, by any spelling of their names.
            config: File or recipe with further options.

        Raises:
            UserError: As the command raises it, with keywords in the place of flags.
        """
        settings = list(settings_of(command.Options))
        _check_known(caller, keywords, settings)
        values = {name: value for name, value in given.items() if value is not None}
        values |= match_names(keywords, settings, f"{caller.__name__}()", "")
        plain = {name: _plain(value) for name, value in values.items()}
        try:
            return command.run(build(command.Options, plain, None if config is None else Path(config)))
        except UserError as error:
            raise self._in_python(error, settings) from error

    def _in_python(self, error: UserError, settings: Sequence[Setting]) -> UserError:
        """The same error, about keywords instead of flags and arguments instead of their files."""

        def translated(text: str | None) -> str | None:
            if text is None:
                return None
            for path, argument in self._arguments.items():
                text = re.sub(re.escape(path) + r":(\d+)", partial(_row_of, argument), text)
                text = text.replace(path, argument)
            return _without_flags(text, settings)

        same = type(error).__new__(type(error))
        UserError.__init__(
            same, translated(error.problem) or "", where=translated(error.where), hint=translated(error.hint)
        )
        return same


def _row_of(argument: str, line: re.Match[str]) -> str:
    """A line of an argument's file as the index of its row."""
    return f"{argument}[{int(line[1]) - 1}]"


def _without_flags(text: str, settings: Sequence[Setting]) -> str:
    by_flag = {setting.flag: setting for setting in settings}

    def keyword(match: re.Match[str]) -> str:
        flag = match[0].replace("--no-", "--") if match[0] not in by_flag else match[0]
        if flag not in by_flag:
            return match[0]
        name = name_of(by_flag[flag])
        if by_flag[flag].kind is not bool or match.start() == 0:
            return name
        return f"{name}={flag == match[0]}"

    return re.sub(r"(?<![\w-])--[a-z][a-z0-9-]*", keyword, text)


def name_of(setting: Setting) -> str:
    """The keyword of an option: its flag, as Python writes it."""
    return setting.key if setting.positional else setting.flag.removeprefix("--").replace("-", "_")


def _plain(value: Any) -> Any:
    """A path, or what stands for one, as text."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _check_known(
    caller: Callable[..., Any], keywords: Mapping[str, Any], settings: Sequence[Setting]
) -> None:
    """Name the keyword that was probably meant, among those that the function itself takes too.

    Raises:
        UserError: It has no such keyword.
    """
    names = list(inspect.signature(caller).parameters)
    known = {*names, *(setting.key for setting in settings)}
    for name in keywords:
        if name not in known:
            from stepcredit.wording import suggestion

            raise UserError(
                f"there is no keyword {name!r}",
                where=f"{caller.__name__}()",
                hint=suggestion(name, names, f"help(stepcredit.{caller.__name__}) lists them"),
            )


def takes_options_of(
    command: ModuleType, *apart: str
) -> Callable[[Callable[Fields, Made]], Callable[Fields, Made]]:
    """Give a function's help and signature the options of its command.

    Args:
        apart: Options that the function does not take, because its own arguments say the same.
    """

    def decorate(function: Callable[Fields, Made]) -> Callable[Fields, Made]:
        own = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        taken = {parameter.name for parameter in own} | set(apart)
        every = list(settings_of(command.Options))
        settings = [setting for setting in every if name_of(setting) not in taken]
        lines = ["", "", "    Keyword Args:"]
        for setting in settings:
            about = _without_flags(setting.field.metadata["help"], every).replace("*.bin", "``*.bin``")
            default = "" if setting.default in (None, ()) else f" (default: {setting.default!r})"
            lines.append(f"        {name_of(setting)}: {about}{default}.")
        function.__doc__ = (function.__doc__ or "").rstrip() + "\n".join(lines) + "\n    "
        keywords = [
            inspect.Parameter(
                name_of(setting),
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if setting.required else setting.default,
                annotation=setting.field.type,
            )
            for setting in settings
        ]
        function.__signature__ = inspect.Signature([*own, *keywords])  # type: ignore[attr-defined]
        return function

    return decorate

"""From an options dataclass to flags; :mod:`stepcredit.settings` makes the dataclass of what they give."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from stepcredit.errors import UserError
from stepcredit.settings import Setting, settings_of
from stepcredit.wording import suggestion

_METAVARS = {int: "N", float: "X", Path: "PATH"}


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are user errors, reported in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the usage error instead of printing the usage."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
        hint = suggestion(unknown, self._option_string_actions, f"see {self.prog} --help")
        raise UserError(message, hint=hint if unknown.startswith("--") else f"see {self.prog} --help")


def _default_text(setting: Setting) -> str:
    if setting.required:
        return "" if setting.positional else " (required)"
    default = setting.default
    if default is None or default == () or default is False:
        return ""
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    if isinstance(default, float) and default >= 1e6:
        default = f"{default:g}".replace("e+", "e")
    return f" (default: {default})"


def add_settings(parser: argparse.ArgumentParser, options_class: type) -> None:
    """Add a flag or position for every leaf; nothing is set unless the user gives it.

    A field whose metadata name ``hidden`` leaves takes them as ever, but ``--help`` does not show them.
    """
    groups: dict[type, argparse._ArgumentGroup] = {}
    hidden = {name for outer in fields(options_class) for name in outer.metadata.get("hidden", ())}
    for setting in settings_of(options_class):
        if setting.group is options_class:
            target: Any = parser
        else:
            title = (setting.group.__doc__ or setting.group.__name__).strip().splitlines()[0].rstrip(".")
            target = groups.setdefault(setting.group, parser.add_argument_group(title))
        _add_setting(target, setting, hidden=setting.key in hidden)


def _add_setting(target: Any, setting: Setting, *, hidden: bool) -> None:
    metadata = setting.field.metadata
    about, default = metadata["help"], _default_text(setting)
    if default:  # A command's own default takes the place of the one that the option describes.
        about = about.partition("; default is ")[0]
    text = argparse.SUPPRESS if hidden else (about + default).replace("%", "%%")
    many = get_origin(setting.kind) is tuple
    if setting.positional:
        target.add_argument(
            setting.key,
            nargs="*" if metadata.get("many") else "?",
            default=argparse.SUPPRESS,
            metavar=setting.shown,
            help=text,
        )
        return
    arguments: dict[str, Any] = {"dest": setting.key, "default": argparse.SUPPRESS, "help": text}
    if setting.kind is bool:
        target.add_argument(setting.flag, action=argparse.BooleanOptionalAction, **arguments)
        return
    if many and get_args(setting.kind)[0] not in (int, float):
        arguments["action"] = "append"
    choices = metadata.get("choices") or (
        get_args(setting.kind) if get_origin(setting.kind) is Literal else None
    )
    metavar = metadata.get("metavar") or (
        "{" + ",".join(choices) + "}"
        if choices
        else _METAVARS.get(setting.kind) or setting.key.upper().replace("_", "-")
    )
    target.add_argument(setting.flag, metavar=metavar, **arguments)

"""From an options dataclass to flags, and from flags and a YAML file back to the dataclass.

Every value comes from, in rising order: the field's default, the ``--config`` file, the command line.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from stepcredit.errors import UserError
from stepcredit.options import flag_of, spellings
from stepcredit.typed_values import is_required, typed_field, without_none
from stepcredit.wording import suggestion


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are user errors, reported in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the usage error instead of printing the usage."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
        hint = suggestion(unknown, self._option_string_actions, f"see {self.prog} --help")
        raise UserError(message, hint=hint if unknown.startswith("--") else f"see {self.prog} --help")


@dataclass(frozen=True)
class Setting:
    """One leaf of an options dataclass.

    Attributes:
        path: Field names from the outermost dataclass inwards.
        field: The dataclass field.
        kind: Its type without ``None``.
        group: The dataclass that holds it.
        holder: The instance of it that the outer dataclass has by default, if it is nested.
    """

    path: tuple[str, ...]
    field: Field[Any]
    kind: Any
    group: type
    holder: Any = None

    @property
    def key(self) -> str:
        """Name in a configuration file and in the parsed arguments."""
        return self.path[-1]

    @property
    def flag(self) -> str:
        """Name on the command line."""
        return flag_of(self.field)

    @property
    def positional(self) -> bool:
        """Whether it is given by position."""
        return bool(self.field.metadata.get("positional"))

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return is_required(self.field)

    @property
    def shown(self) -> str:
        """How a message names it."""
        return self.key.replace("_", "-").upper() if self.positional else self.flag


def settings_of(options_class: type, path: tuple[str, ...] = (), holder: Any = None) -> Iterator[Setting]:
    """All leaves of an options dataclass, in order; nested dataclasses are flattened."""
    hints = get_type_hints(options_class)
    for field in fields(options_class):
        kind = without_none(hints[field.name])
        if is_dataclass(kind) and isinstance(kind, type):
            yield from settings_of(kind, (*path, field.name), _default_of(field))
        elif field.metadata.get("help"):
            yield Setting((*path, field.name), field, kind, options_class, holder)


def _default_text(setting: Setting) -> str:
    if setting.required:
        return "" if setting.positional else " (required)"
    if setting.holder is not None:
        default = getattr(setting.holder, setting.field.name)
    elif setting.field.default_factory is not MISSING:
        default = setting.field.default_factory()
    else:
        default = setting.field.default
    if default is None or default == () or default is False:
        return ""
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return f" (default: {default})"


def add_settings(parser: argparse.ArgumentParser, options_class: type) -> None:
    """Add a flag or position for every leaf; nothing is set unless the user gives it."""
    groups: dict[type, argparse._ArgumentGroup] = {}
    for setting in settings_of(options_class):
        if setting.group is options_class:
            target: Any = parser
        else:
            title = (setting.group.__doc__ or setting.group.__name__).strip().splitlines()[0].rstrip(".")
            target = groups.setdefault(setting.group, parser.add_argument_group(title))
        _add_setting(target, setting)


def _add_setting(target: Any, setting: Setting) -> None:
    metadata = setting.field.metadata
    text = (metadata["help"] + _default_text(setting)).replace("%", "%%")
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
        "{" + ",".join(choices) + "}" if choices else setting.key.upper().replace("_", "-")
    )
    target.add_argument(setting.flag, metavar=metavar, **arguments)


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of options, or the recipe of that name.

    Raises:
        UserError: It cannot be read or is not a mapping.
    """
    from stepcredit.recipes import read_settings, recipe_names, recipe_path

    return read_settings(path, recipe_path, recipe_names())


def _flatten(content: Mapping[str, Any], settings: Sequence[Setting], path: Path) -> dict[str, Any]:
    """Match the keys of a configuration file, nested or flat, to settings by their keys."""
    known = {name: setting.key for setting in settings for name in spellings(setting.field)}
    sections = {part for setting in settings for part in setting.path[:-1]}
    flat: dict[str, Any] = {}
    for raw, value in content.items():
        name = str(raw).replace("-", "_")
        if name in sections and isinstance(value, dict):
            matched = _flatten(value, settings, path)
        elif name in known:
            matched = {known[name]: value}
        else:
            hint = suggestion(name, known, "see --help for the options")
            raise UserError(f"unknown option {raw!r}", where=path, hint=hint)
        if repeated := flat.keys() & matched.keys():
            raise UserError(f"{min(repeated)} is given twice", where=path, hint="leave one of them out")
        flat |= matched
    return flat


def build(options_class: type, given: Mapping[str, Any], config: Path | None = None) -> Any:
    """Make the options from what the command line gave and the configuration file.

    Raises:
        UserError: Something is missing, unknown, of the wrong type or out of range.
    """
    settings = list(settings_of(options_class))
    in_file = {} if config is None else _flatten(read_config(config), settings, config)
    values = in_file | dict(given)
    converted: dict[tuple[str, ...], Any] = {}
    for setting in settings:
        hint = setting.field.metadata["help"]
        if setting.key in values:
            where = setting.shown if setting.key in given else f"{config}: {setting.key}"
            converted[setting.path] = _typed(setting, values[setting.key], where)
        elif setting.required:
            raise UserError(f"{setting.shown} is missing", hint=hint)
    return _assemble(options_class, converted, ())


def _typed(setting: Setting, value: Any, where: str) -> Any:
    if value is None and setting.field.default is None:
        return None
    try:
        return typed_field(value, setting.field, setting.kind, where)
    except UserError as error:
        raise UserError(
            error.problem, where=error.where, hint=error.hint or setting.field.metadata["help"]
        ) from error


def _assemble(options_class: type, converted: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    hints = get_type_hints(options_class)
    arguments: dict[str, Any] = {}
    for field in fields(options_class):
        here = (*path, field.name)
        kind = without_none(hints[field.name])
        if here in converted:
            arguments[field.name] = converted[here]
        elif is_dataclass(kind) and isinstance(kind, type):
            arguments[field.name] = _assemble(kind, converted, here)
            default = _default_of(field)
            if default is not None:
                # What the outer class gives as default counts, not what the inner class would.
                changed = {key[len(here)] for key in converted if key[: len(here)] == here}
                assembled = arguments[field.name]
                arguments[field.name] = replace(
                    default, **{name: getattr(assembled, name) for name in changed}
                )
    return options_class(**arguments)


def _default_of(field: Field[Any]) -> Any:
    """What a field holds by default, ``None`` where that is nothing, or its type's own defaults."""
    if field.default is not MISSING:
        return field.default
    if field.default_factory is MISSING or isinstance(field.default_factory, type):
        return None
    return field.default_factory()

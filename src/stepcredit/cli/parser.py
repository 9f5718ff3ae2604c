"""From an options dataclass to flags, and from flags and a YAML file back to the dataclass.

Every value comes from, in rising order: the field's default, the ``--config`` file, the command line.
"""

from __future__ import annotations

import argparse
import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from stepcredit.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are user errors, reported in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the usage error instead of printing the usage."""
        raise UserError(message, hint=f"see {self.prog} --help")


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
        return str(self.field.metadata.get("flag") or "--" + self.key.replace("_", "-"))

    @property
    def positional(self) -> bool:
        """Whether it is given by position."""
        return bool(self.field.metadata.get("positional"))

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def shown(self) -> str:
        """How a message names it."""
        return self.key.replace("_", "-").upper() if self.positional else self.flag


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        rest = [part for part in get_args(kind) if part is not type(None)]
        assert len(rest) == 1, f"an option has one type, or one and None: {kind}"
        return rest[0]
    return kind


def settings_of(options_class: type, path: tuple[str, ...] = (), holder: Any = None) -> Iterator[Setting]:
    """All leaves of an options dataclass, in order; nested dataclasses are flattened."""
    hints = get_type_hints(options_class)
    for each in fields(options_class):
        kind = _without_none(hints[each.name])
        if is_dataclass(kind) and isinstance(kind, type):
            yield from settings_of(kind, (*path, each.name), _default_of(each))
        elif each.metadata.get("help"):
            yield Setting((*path, each.name), each, kind, options_class, holder)


def convert(value: Any, kind: Any) -> Any:
    """Turn text from the command line, or a value from YAML, into a field's type.

    Raises:
        ValueError: It is not of that type.
    """
    origin = get_origin(kind)
    if origin is tuple:
        item = get_args(kind)[0]
        if isinstance(value, str) and item in (int, float):
            value = [part for part in value.split(",") if part.strip()]
        elif not isinstance(value, list | tuple):
            value = [value]
        return tuple(convert(part, item) for part in value)
    if origin is Literal:
        choices = get_args(kind)
        if value not in choices:
            raise ValueError(f"not one of {', '.join(map(str, choices))}")
        return value
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise ValueError("not true or false")
    if isinstance(value, bool | list | tuple | dict):
        raise ValueError(f"not {_type_name(kind)}")
    if kind is int:
        number = float(value) if isinstance(value, str) and "e" in value.lower() else value
        if isinstance(number, float) and not number.is_integer():
            raise ValueError("not a whole number")
        return int(number)
    return kind(value)


def _type_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if get_origin(kind) is tuple:
        return f"a list such as 1,4,16: each item is {_type_name(get_args(kind)[0])}"
    return names.get(kind, str(kind))


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
    import yaml

    from stepcredit.recipes import recipe_names, recipe_path

    path = path if path.exists() else recipe_path(str(path)) or path
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "cannot be read",
            where=path,
            hint=f"check the path given to --config, or use a recipe: {', '.join(recipe_names())}",
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        raise UserError("is not YAML", where=f"{path}{line}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError("must hold 'option: value' lines", where=path)
    return content


def _flatten(content: Mapping[str, Any], settings: Sequence[Setting], path: Path) -> dict[str, Any]:
    """Match the keys of a configuration file, nested or flat, to settings."""
    known = {setting.key for setting in settings}
    sections = {part for setting in settings for part in setting.path[:-1]}
    flat: dict[str, Any] = {}
    for raw, value in content.items():
        key = str(raw).replace("-", "_")
        if key in sections and isinstance(value, dict):
            flat |= _flatten(value, settings, path)
        elif key in known:
            flat[key] = value
        else:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see --help for the options"
            raise UserError(f"unknown option {raw!r}", where=path, hint=hint)
    return flat


def build(options_class: type, given: Mapping[str, Any], config: Path | None = None) -> Any:
    """Make the options from what the command line gave and the configuration file.

    Raises:
        UserError: Something is missing, unknown, of the wrong type or out of range.
    """
    settings = list(settings_of(options_class))
    values = {} if config is None else _flatten(read_config(config), settings, config)
    origin = dict.fromkeys(values, str(config))
    values |= given
    converted: dict[tuple[str, ...], Any] = {}
    for setting in settings:
        if setting.key not in values:
            if setting.required:
                raise UserError(f"{setting.shown} is missing", hint=f"{setting.field.metadata['help']}")
            continue
        value = values[setting.key]
        where = setting.shown if setting.key in given else f"{origin[setting.key]}: {setting.key}"
        optional = setting.field.default is None
        try:
            converted[setting.path] = None if value is None and optional else convert(value, setting.kind)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{value!r} is not {_type_name(setting.kind)}",
                where=where,
                hint=setting.field.metadata["help"],
            ) from error
        choices = setting.field.metadata.get("choices")
        if choices and converted[setting.path] is not None and converted[setting.path] not in choices:
            raise UserError(f"{value!r} is not one of {', '.join(choices)}", where=where)
    return _assemble(options_class, converted, ())


def _assemble(options_class: type, converted: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    hints = get_type_hints(options_class)
    arguments: dict[str, Any] = {}
    for each in fields(options_class):
        here = (*path, each.name)
        kind = _without_none(hints[each.name])
        if here in converted:
            arguments[each.name] = converted[here]
        elif is_dataclass(kind) and isinstance(kind, type):
            arguments[each.name] = _assemble(kind, converted, here)
            default = _default_of(each)
            if default is not None:
                # What the outer class gives as default counts, not what the inner class would.
                changed = {key[len(here)] for key in converted if key[: len(here)] == here}
                assembled = arguments[each.name]
                arguments[each.name] = replace(
                    default, **{name: getattr(assembled, name) for name in changed}
                )
    return options_class(**arguments)


def _default_of(each: Field[Any]) -> Any:
    """What a field holds by default, ``None`` where that is nothing, or its type's own defaults."""
    if each.default is not MISSING:
        return each.default
    if each.default_factory is MISSING or isinstance(each.default_factory, type):
        return None
    return each.default_factory()

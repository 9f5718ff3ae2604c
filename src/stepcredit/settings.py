"""The settings of an options dataclass, and from values by name back to the dataclass.

The command line, configuration files and the functions of :mod:`stepcredit.api` all come through here. Every
value comes from, in rising order: the field's default, the configuration file, the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from stepcredit.errors import UserError
from stepcredit.options import flag_of, spellings
from stepcredit.recipes import read_settings, recipe_names, recipe_path
from stepcredit.typed_values import is_required, typed_field, without_none
from stepcredit.wording import suggestion


@dataclass(frozen=True)
class Setting:
    """One leaf of an options dataclass.

    Attributes:
        path: Field names from the outermost dataclass inwards.
        kind: Its type without ``None``.
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
    def default(self) -> Any:
        """Its value where it is not given; ``None`` where it must be given."""
        if self.required:
            return None
        if self.holder is not None:
            return getattr(self.holder, self.field.name)
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return self.field.default

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


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of options, or the recipe of that name.

    Raises:
        UserError: It cannot be read or is not a mapping.
    """
    return read_settings(path, recipe_path, recipe_names())


def match_names(
    content: Mapping[str, Any], settings: Sequence[Setting], where: str | Path, otherwise: str
) -> dict[str, Any]:
    """Values by the keys of the settings that they are for.

    Args:
        content: Values by any spelling of a setting's name, flat or nested as the dataclasses are.
        otherwise: The hint where a name is like none that there is.

    Raises:
        UserError: A name is not known, or a setting is given twice.
    """
    known = {name: setting.key for setting in settings for name in spellings(setting.field)}
    sections = {part for setting in settings for part in setting.path[:-1]}
    flat: dict[str, Any] = {}
    for raw, value in content.items():
        name = str(raw).replace("-", "_")
        if name in sections and isinstance(value, dict):
            matched = match_names(value, settings, where, otherwise)
        elif name in known:
            matched = {known[name]: value}
        else:
            hint = suggestion(name, known, otherwise)
            raise UserError(f"unknown option {raw!r}", where=where, hint=hint)
        if repeated := flat.keys() & matched.keys():
            raise UserError(f"{min(repeated)} is given twice", where=where, hint="leave one of them out")
        flat |= matched
    return flat


def build(options_class: type, given: Mapping[str, Any], config: Path | None = None) -> Any:
    """Make the options from what a caller gave, by the settings' keys, and the configuration file.

    Raises:
        UserError: Something is missing, unknown, of the wrong type or out of range.
    """
    settings = list(settings_of(options_class))
    in_file = {}
    if config is not None:
        in_file = match_names(read_config(config), settings, config, "see --help for the options")
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

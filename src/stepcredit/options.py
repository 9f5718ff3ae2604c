"""Fields of configuration dataclasses, described so that the command line can show and parse them.

A command's options are a frozen keyword-only dataclass whose fields are made with :func:`argument` and
:func:`option`; a dataclass may hold another one, whose fields then appear as options of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from stepcredit.errors import UserError


def argument(help: str, *, default: Any = MISSING, many: bool = False) -> Any:
    """A positional argument.

    Args:
        help: One line for ``--help``.
        default: Makes it optional.
        many: Takes one or more values; the field is then a tuple.
    """
    metadata = {"help": help, "positional": True, "many": many}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def option(
    help: str,
    *,
    default: Any = MISSING,
    flag: str | None = None,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
) -> Any:
    """An option ``--name VALUE``; a ``bool`` field becomes ``--name`` / ``--no-name``, a tuple may repeat.

    Args:
        help: One line for ``--help``; the default is added to it.
        default: Value where the option is not given; without one it is required.
        flag: Name on the command line where it differs from the field's, e.g. ``--n``.
        choices: Allowed values.
        metavar: What stands for the value in ``--help``.
    """
    metadata = {"help": help, "flag": flag, "choices": choices, "metavar": metavar}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def same_option(owner: type, name: str) -> Any:
    """An option that another command's dataclass has too: the same help, default and choices."""
    return next(
        field(default=known.default, metadata=known.metadata) for known in fields(owner) if known.name == name
    )


def flag_of(field: Field[Any]) -> str:
    """An option's name on the command line."""
    return field.metadata.get("flag") or "--" + field.name.replace("_", "-")


def spellings(field: Field[Any]) -> tuple[str, ...]:
    """The names of a field in a configuration file: its own, and its flag's where that differs."""
    return tuple(dict.fromkeys([field.name, flag_of(field).lstrip("-").replace("-", "_")]))


def check_at_least_one(options: Any, *names: str) -> None:
    """Refuse numbers below 1.

    Args:
        names: Its fields that are counts; ``None`` in one of them means that it was not given.

    Raises:
        UserError: One is smaller, with its flag.
    """
    for setting in fields(options):
        value = getattr(options, setting.name)
        if setting.name in names and value is not None and value < 1:
            raise UserError(f"must be at least 1, got {value}", where=flag_of(setting))


def named_values(texts: Sequence[str], flag: str, *, hint: str) -> dict[str, Any]:
    """``NAME=VALUE`` as the command line writes it; values are read as JSON, and as text where they are not.

    Raises:
        UserError: There is no equals sign, or what precedes it is no name.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"{text!r} is not NAME=VALUE", where=flag, hint=hint)
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError):
            values[name] = value
    return values


def check_draws(draws: int, seed: int) -> None:
    """Refuse fewer bootstrap draws than an interval can be read from, and what is no seed of them.

    Raises:
        UserError: There are fewer than 100, or the seed is none.
    """
    if draws < 100:
        raise UserError(f"{draws} draws give no interval", where="--draws", hint="use 1000 or more")
    check_seed(seed)


def check_seed(seed: int) -> None:
    """Refuse numbers that libraries do not take as a seed.

    Raises:
        UserError: It is negative or has more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"must be from 0 to {2**32 - 1}, got {seed}", where="--seed")


def arguments_of(options: Any, default: Any = None) -> Iterator[str]:
    """The command-line arguments that give these options: positions first, then what is not the default.

    Args:
        default: Instance whose values go without saying; by default each field's own default.
    """
    flags: list[str] = []
    for setting in fields(options):
        value, usual = getattr(options, setting.name), _usual(setting, default)
        if is_dataclass(value):
            flags += arguments_of(value, usual)
        elif setting.metadata.get("positional"):
            yield from map(str, value if setting.metadata["many"] else [] if value is None else [value])
        elif setting.metadata.get("help") and value != usual:
            flags += _flag(flag_of(setting), value)
    yield from flags


def _usual(setting: Any, holder: Any) -> Any:
    if holder is not None:
        return getattr(holder, setting.name)
    if isinstance(setting.default_factory, type):
        # Its fields' own defaults; some of them may be required, so that no instance can be made.
        return None
    if setting.default_factory is not MISSING:
        return setting.default_factory()
    return None if setting.default is MISSING else setting.default


def _flag(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield name if value else "--no-" + name.removeprefix("--")
    else:
        items = value if isinstance(value, tuple) else (value,)
        if all(isinstance(item, int | float) for item in items):
            items = (",".join(map(str, items)),)
        for item in map(str, items):
            # A value that looks like a flag must stand in the same word as its own.
            yield from [f"{name}={item}"] if item.startswith("-") else (name, item)


class CommandResult(Protocol):
    """What a command gives back: printed as text, or with ``--json`` as JSON."""

    def to_json(self) -> Any:
        """JSON-able values, numbers unrounded."""
        ...

    def to_text(self) -> str:
        """For a person at a terminal."""
        ...


@dataclass(frozen=True, kw_only=True)
class FieldsResult:
    """A result whose JSON has all of its fields."""

    def to_json(self) -> dict[str, Any]:
        """All fields, paths as text."""
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True)
class OutputResult(FieldsResult):
    """The result of a command that writes one output, once.

    Attributes:
        already_done: It was there from an earlier run of the same work.
    """

    out: Path
    already_done: bool

    @property
    def state(self) -> str:
        """Whether this run wrote it."""
        return "already there" if self.already_done else "written"

"""Values as messages between two processes that do not trust each other.

A message is JSON behind its length. Plain data arrive as copies; any other object stays where it is, and the
other side gets a :class:`Reference` to it. Nothing is ever unpickled or evaluated.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import json
import math
import os
import struct
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_LARGEST = 64 << 20  # bytes of a message
_LENGTH = struct.Struct("<I")
_ORDERED: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "bytearray": bytearray,
    "bytes": bytes,
    "range": lambda items: range(*items),
    "slice": lambda items: slice(*items),
    "complex": lambda items: complex(*items),
    "Fraction": lambda items: fractions.Fraction(*items),
    "Decimal": lambda items: decimal.Decimal(*items),
    "date": lambda items: datetime.date(*items),
    "time": lambda items: datetime.time(*items),
    "datetime": lambda items: datetime.datetime(*items),
    "timedelta": lambda items: datetime.timedelta(*items),
}
# By the methods of the class itself, whatever a subclass makes of them.
_CLASSES: tuple[tuple[type, str, Callable[[Any], Iterable[Any]]], ...] = (
    (list, "list", list.__iter__),
    (tuple, "tuple", tuple.__iter__),
    (set, "set", set.__iter__),
    (frozenset, "frozenset", frozenset.__iter__),
    (collections.deque, "deque", collections.deque.__iter__),
    (bytearray, "bytearray", bytearray.__iter__),
    (bytes, "bytes", bytes.__iter__),
    (range, "range", lambda value: [value.start, value.stop, value.step]),
    (slice, "slice", lambda value: [value.start, value.stop, value.step]),
    (complex, "complex", lambda value: [complex.__complex__(value).real, complex.__complex__(value).imag]),
    (fractions.Fraction, "Fraction", lambda value: [value.numerator, value.denominator]),
    (decimal.Decimal, "Decimal", lambda value: [decimal.Decimal.__str__(value)]),
    (datetime.datetime, "datetime", lambda value: [*value.timetuple()[:6], value.microsecond]),
    (datetime.date, "date", lambda value: [value.year, value.month, value.day]),
    (datetime.time, "time", lambda value: [value.hour, value.minute, value.second, value.microsecond]),
    (datetime.timedelta, "timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
)
MUTABLE = (list, dict, set, bytearray, collections.deque)
# What of the standard library a program may name as its own: nothing that runs text, nothing that equals all.
_PLAIN_MODULES = {
    "abc", "array", "bisect", "_bisect", "builtins", "calendar", "cmath", "collections", "collections.abc",
    "copy", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "_functools", "heapq",
    "_heapq", "itertools", "json", "math", "numbers", "operator", "_operator", "queue", "re", "statistics",
    "string", "struct", "textwrap", "time", "typing",
}  # fmt: skip
_PLAIN_BUILTINS = {
    "abs", "all", "any", "bin", "chr", "divmod", "format", "hash", "hex", "isinstance", "issubclass", "iter",
    "len", "max", "min", "next", "oct", "ord", "pow", "repr", "round", "sorted", "sum",
}  # fmt: skip


class ClosedError(Exception):
    """The other side is gone."""


class Wire:
    """Two pipes to the other side.

    Args:
        source: Descriptor to read from.
        target: Descriptor to write to.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = os.fdopen(source, "rb"), os.fdopen(target, "wb", buffering=0)

    def send(self, message: Any) -> None:
        """Send a message of JSON's types.

        Raises:
            ClosedError: The other side is gone.
            ValueError: It is too long.
        """
        body = json.dumps(message).encode()
        if len(body) > _LARGEST:
            raise ValueError("a value is too large")
        rest = memoryview(_LENGTH.pack(len(body)) + body)
        try:
            while rest:
                rest = rest[self._target.write(rest) :]
        except OSError as error:
            raise ClosedError from error

    def receive(self) -> Any:
        """The next message.

        Raises:
            ClosedError: The other side is gone, or what came is no message.
        """
        header = self._source.read(_LENGTH.size)
        if len(header) < _LENGTH.size:
            raise ClosedError
        (length,) = _LENGTH.unpack(header)
        body = self._source.read(length) if length <= _LARGEST else b""
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ClosedError from error


class Reference:
    """What stands for an object of the other side, by its number there."""

    _remote_number_: int


class Codec:
    """Values to messages and back.

    Args:
        make_remote: Makes what stands for an object of the other side, by its number.
        is_careful: The other side may mean harm; of the standard library it may name plain things only.
    """

    def __init__(self, make_remote: Callable[[int], Any], *, is_careful: bool) -> None:
        self._make_remote, self._is_careful = make_remote, is_careful
        self.exported: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._errors: dict[tuple[int, str], type[BaseException]] = {}

    def encode(self, value: Any) -> Any:
        """A value in JSON's types."""
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is int:
            return value
        if isinstance(value, float):
            number = float.__float__(value)
            return number if math.isfinite(number) else {"float": repr(number)}
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, dict):
            return {"dict": [[self.encode(key), self.encode(item)] for key, item in dict.items(value)]}
        for base, name, contents in _CLASSES:
            if isinstance(value, base):
                return {name: [self.encode(item) for item in contents(value)]}
        return self._encode_other(value)

    def _encode_other(self, value: Any) -> Any:
        if value is NotImplemented or value is Ellipsis:
            return {"constant": str(value)}
        if isinstance(value, Reference):
            return {"yours": value._remote_number_}
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return {"array": [str(value.dtype), self.encode(value.tolist()), list(value.shape)]}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"error": self._error_chain(value)}
        home = _home(value)
        if home is not None and (self._is_careful or _is_plain(home, value)):
            return {"global": home}
        return {"mine": self.export(value)}

    def export(self, value: Any) -> int:
        """The number by which the other side can speak of an object; it lives as long as this process."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self.exported)
            self.exported[number] = value
        return number

    def decode(self, message: Any) -> Any:
        """A value from JSON's types.

        Raises:
            ClosedError: The message is none of ours.
        """
        if not isinstance(message, Mapping):
            return message
        if len(message) != 1:
            raise ClosedError
        ((name, content),) = message.items()
        try:
            return self._decode(name, content)
        except (KeyError, TypeError, ValueError, ArithmeticError, ImportError, AttributeError) as error:
            raise ClosedError from error

    def _decode(self, name: str, content: Any) -> Any:
        if name in _ORDERED:
            return _ORDERED[name]([self.decode(item) for item in content])
        match name:
            case "dict":
                return {self.decode(key): self.decode(item) for key, item in content}
            case "float":
                return float(content)
            case "constant":
                return {"NotImplemented": NotImplemented, "Ellipsis": Ellipsis}[content]
            case "yours":
                return self.exported[content]
            case "mine":
                return self._make_remote(int(content))
            case "module":
                return importlib.import_module(content)
            case "global" if content[0].partition(".")[0] in sys.stdlib_module_names:
                value = getattr(importlib.import_module(content[0]), content[1])
                if self._is_careful and not _is_plain(content, value):
                    raise ClosedError
                return value
            case "error":
                return self._error_class(content)
            case "array":
                return self._array(*content)
        raise ClosedError

    def _array(self, kind: str, content: Any, shape: list[int]) -> Any:
        import numpy

        array = numpy.array(self.decode(content), dtype=kind).reshape(shape)
        return array if shape else array[()]

    def _error_chain(self, error: type[BaseException]) -> list[Any]:
        """The classes of an error up to the first of Python's own."""
        chain: list[Any] = []
        for base in error.__mro__:
            if getattr(builtins, base.__name__, None) is base:
                return [*chain, base.__name__]
            if issubclass(base, BaseException):
                chain.append([self.export(base), base.__name__])
        return [*chain, "Exception"]

    def _error_class(self, chain: list[Any]) -> type[BaseException]:
        """Classes of this process that stand for the other's, with the same names and descent."""
        *own, builtin = chain
        base: type[BaseException] = getattr(builtins, builtin)
        if not issubclass(base, BaseException):
            raise ClosedError
        for number, name in reversed(own):
            key = (int(number), str(name))
            if key not in self._errors:
                self._errors[key] = type(key[1], (base,), {"__module__": "__main__"})
            base = self._errors[key]
        return base

    def encode_error(self, error: BaseException) -> Any:
        """An error with its class and arguments."""
        try:
            arguments = [self.encode(item) for item in error.args]
        except Exception:
            arguments = []
        return [self._error_chain(type(error)), arguments]

    def decode_error(self, message: Any) -> BaseException:
        """An error to raise here."""
        chain, arguments = message
        values = [self.decode(item) for item in arguments]
        try:
            return self._error_class(chain)(*values)
        except TypeError:  # those of Unicode want five arguments
            return Exception(*values)


def _home(value: Any) -> list[str] | None:
    """Module and name of what the standard library defines, so that the other side takes its own."""
    module = getattr(value, "__module__", None) or "builtins"
    name = getattr(value, "__qualname__", None) or getattr(value, "_name", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if module.partition(".")[0] not in sys.stdlib_module_names or module == "__main__":
        return None
    return [module, name] if getattr(sys.modules.get(module), name, None) is value else None


def _is_plain(home: Sequence[str], value: Any) -> bool:
    """Whether a program may name this of the standard library: a class, or a function without effects."""
    module, name = home
    if module == "typing":
        return True
    if isinstance(value, type):
        return module in _PLAIN_MODULES
    is_function = isinstance(value, types.FunctionType | types.BuiltinFunctionType)
    return is_function and module in _PLAIN_MODULES and (module != "builtins" or name in _PLAIN_BUILTINS)

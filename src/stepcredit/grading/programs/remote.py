"""Objects of another process, used as if they were here: so do tests call a program."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Mapping
from typing import Any

from stepcredit.grading.programs.messages import MUTABLE, ClosedError, Codec, Reference, Wire

_UNARY: dict[str, Callable[..., Any]] = {
    "__len__": len, "__iter__": iter, "__next__": next, "__bool__": bool, "__str__": str, "__repr__": repr,
    "__int__": int, "__float__": float, "__complex__": complex, "__hash__": hash, "__reversed__": reversed,
    "__round__": round, "__format__": format, "__bytes__": bytes, "__dir__": dir, "__divmod__": divmod,
    "__instancecheck__": lambda kind, value: isinstance(value, kind),
    "__subclasscheck__": lambda kind, other: issubclass(other, kind),
    "__enter__": lambda value: type(value).__enter__(value),
    "__exit__": lambda value: type(value).__exit__(value, None, None, None),
}  # fmt: skip
_ARITHMETIC = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift",
    "rshift",
)  # fmt: skip
_OF_OPERATOR = ("getitem", "setitem", "delitem", "contains", "neg", "pos", "abs", "invert", "index")
_CLOSED = (types.FunctionType, types.MethodType, types.ModuleType, type)
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")

OPERATIONS: dict[str, Callable[..., Any]] = {
    **_UNARY,
    **{f"__{name}__": getattr(operator, f"__{name}__") for name in (*_ARITHMETIC, *_OF_OPERATOR)},
    **{name: getattr(operator, name) for name in _COMPARISONS},
    "__call__": lambda function, *arguments, **named: function(*arguments, **named),
    "getattr": getattr,
    "setattr": setattr,
}


def _turned(apply: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, other: apply(other, value)


OPERATIONS.update({f"__r{name}__": _turned(OPERATIONS[f"__{name}__"]) for name in _ARITHMETIC})


class Peer:
    """One of the two sides: asks the other to do something with its objects, and answers while it waits.

    Args:
        commands: What the other side may ask for beside operations on objects, by name.
        allows: Whether the other side may do an operation on an object of this side; who asks that is careful
            with what it gets too.
    """

    def __init__(
        self,
        wire: Wire,
        commands: Mapping[str, Callable[..., Any]] | None = None,
        allows: Callable[[Any, str, tuple[Any, ...]], bool] | None = None,
    ) -> None:
        self._wire, self._commands, self._allows = wire, dict(commands or {}), allows
        self._codec = Codec(lambda number: Remote(self, number), is_careful=allows is not None)

    def ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Have the other side run a command or an operation.

        Lists and other mutable arguments change here as they did there.

        Raises:
            ClosedError: The other side is gone, or talks nonsense.
        """
        encode = self._codec.encode
        by_name = {key: encode(value) for key, value in named.items()}
        self._wire.send(["ask", name, [encode(value) for value in arguments], by_name])
        while True:
            match self._wire.receive():
                case ["ask", str(), list(), dict()] as question:
                    self._answer(*question[1:])
                case ["value", message, list(changes)]:
                    for place, content in changes:
                        target = arguments[place] if isinstance(place, int) else named[place]
                        _change(target, self._codec.decode(content))
                    return self._codec.decode(message)
                case ["error", [list(), list()] as message]:
                    raise self._codec.decode_error(message)
                case _:
                    raise ClosedError

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            match self._wire.receive():
                case ["ask", str(name), list(arguments), dict(named)]:
                    self._answer(name, arguments, named)
                case _:
                    raise ClosedError

    def _answer(self, name: str, arguments: list[Any], named: dict[str, Any]) -> None:
        try:
            values = [self._codec.decode(message) for message in arguments]
            by_name = {key: self._codec.decode(message) for key, message in named.items()}
            function = self._commands.get(name) or self._operation(name, arguments, values)
            answer = ["value", self._codec.encode(function(*values, **by_name)), []]
            before: dict[Any, Any] = {**dict(enumerate(arguments)), **named}
            places: list[tuple[Any, Any]] = [*enumerate(values), *by_name.items()]
            for place, value in places:
                if isinstance(value, MUTABLE) and (after := self._codec.encode(value)) != before[place]:
                    answer[2].append([place, after])
        except ClosedError:
            raise
        except BaseException as error:  # whatever the program raises, its caller gets
            answer = ["error", self._codec.encode_error(error)]
        self._wire.send(answer)

    def _operation(self, name: str, messages: list[Any], values: list[Any]) -> Callable[..., Any]:
        """An operation on an object that the other side was given, and not on whatever it names."""
        is_given = bool(values) and isinstance(messages[0], dict) and "yours" in messages[0]
        is_allowed = self._allows is None or (is_given and self._allows(values[0], name, tuple(values[1:])))
        if name not in OPERATIONS or not is_given or not is_allowed:
            raise PermissionError(f"{name} may not be accessed from the other process")
        return OPERATIONS[name]


def _change(target: Any, content: Any) -> None:
    """Give a mutable argument the contents that it has on the other side."""
    if isinstance(target, list | bytearray) and isinstance(content, list | bytearray):
        target[:] = content
    elif isinstance(target, dict | set) and isinstance(content, dict | set):
        target.clear()
        target.update(content)
    elif hasattr(target, "extend") and hasattr(target, "clear"):
        target.clear()
        target.extend(content)


class Remote(Reference):
    """An object of the other side.

    Compared with data of this side it is never equal and has no order, however its class compares: else a
    program could return an object that equals everything.
    """

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_remote_peer_", peer)
        object.__setattr__(self, "_remote_number_", number)

    def __getattr__(self, name: str) -> Any:
        return self._remote_peer_.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._remote_peer_.ask("setattr", self, name, value)


def _forwarded(name: str) -> Callable[..., Any]:
    def operation(self: Remote, *arguments: Any, **named: Any) -> Any:
        if name in _COMPARISONS and not isinstance(arguments[0], Remote):
            return NotImplemented
        if name == "__exit__":
            arguments = ()
        return self._remote_peer_.ask(name, self, *arguments, **named)

    return operation


for _name in OPERATIONS:
    if _name.startswith("__"):
        setattr(Remote, _name, _forwarded(_name))


def is_harmless(value: Any, name: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a program may do this with an object of its tests: call it, use what is public of it."""
    if name in ("getattr", "setattr"):
        is_private = not arguments or not isinstance(arguments[0], str) or arguments[0].startswith("_")
        return not is_private and not isinstance(value, _CLOSED)
    return name not in ("__dir__", "__subclasscheck__")

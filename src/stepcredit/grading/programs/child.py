"""The two processes that a program is tested by: one runs the program, the other one its tests."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import site
import sys
import types
from collections.abc import Iterator
from typing import Any

from stepcredit.grading.programs.confinement import Limits, confine
from stepcredit.grading.programs.messages import ClosedError, Wire
from stepcredit.grading.programs.remote import Peer, is_harmless

READY, VERDICT, ENDED = "ready", "verdict", "ended"
_LONGEST_TEXT = 200


def main() -> None:
    """Shut this process in, then be the program or its tests."""
    setup = json.loads(sys.argv[1])
    sys.path[:] = setup["path"]
    site.setquit()  # the rest of what site does takes time
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(10_000)
    confine(setup["folder"], Limits(**setup["limits"]), setup["path"])
    wire = Wire(setup["source"], setup["target"])
    if setup["role"] == "program":
        _be_program(wire)
    else:
        _be_tests(wire, setup["verdict"])


def _be_program(wire: Wire) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}

    def define(program: str) -> None:
        exec(compile(program, "<program>", "exec"), names)

    def take(wanted: list[str]) -> dict[str, Any]:
        return {name: names[name] for name in wanted if name in names}

    peer = Peer(wire, {"define": define, "names": take, "run": _printed})
    wire.send(READY)
    with contextlib.suppress(ClosedError):
        peer.serve()
    os._exit(0)  # without waiting for the program's threads


def _printed(program: str, given: str) -> str:
    """What a program prints for a standard input."""
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(given.encode()), "utf-8")
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            exec(compile(program, "<program>", "exec"), names)
    finally:
        sys.stdin = before
    return printed.buffer.getvalue().decode("utf-8", "replace")


def _be_tests(wire: Wire, verdict: int) -> None:
    def report(kind: str, text: str | None = None) -> None:
        os.write(verdict, json.dumps([kind, text]).encode() + b"\n")

    try:
        if wire.receive() != READY:
            raise ClosedError
        report(READY)
        job = json.loads(sys.stdin.buffer.read())
        failure = _failure(Peer(wire, allows=is_harmless), job["program"], job["tests"])
    except ClosedError:
        report(ENDED)
    else:
        report(VERDICT, failure)
    os._exit(0)


def _failure(peer: Peer, program: str, tests: str) -> str | None:
    """Run a program and its tests; ``None`` if all pass, else what went wrong."""
    try:
        cases = _cases(tests)
        if cases is None:
            code = compile(tests, "<tests>", "exec")
            peer.ask("define", program)
            names = peer.ask("names", sorted(_used(code)))
            exec(code, {**_taken(names), "__name__": "__main__", "__builtins__": builtins})
            return None
        for number, (given, expected) in enumerate(cases, 1):
            if str(peer.ask("run", program, given)).split() != expected.split():
                return f"case {number} printed something else"
    except ClosedError:
        raise
    except BaseException as error:  # SystemExit too: leaving early passes no test
        return f"{type(error).__name__}: {str(error)[:_LONGEST_TEXT]}"
    return None


def _taken(names: dict[str, Any]) -> dict[str, Any]:
    """What the tests take from a program: its own ``abs`` only where they call nothing else of it."""
    own = {name: value for name, value in names.items() if not hasattr(builtins, name)}
    return own if any(not isinstance(value, types.ModuleType) for value in own.values()) else names


def _used(code: types.CodeType) -> Iterator[str]:
    """Names that code may look up, that of its functions included."""
    yield from {name for name in code.co_names if not name.startswith("__")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _used(constant)


def _cases(tests: str) -> list[tuple[str, str]] | None:
    """Pairs of input and output, or ``None`` where the tests are Python source."""
    if not tests.lstrip().startswith("{"):
        return None
    try:
        cases = json.loads(tests)
    except json.JSONDecodeError:
        return None
    return [
        (str(given), str(expected)) for given, expected in zip(cases["inputs"], cases["outputs"], strict=True)
    ]

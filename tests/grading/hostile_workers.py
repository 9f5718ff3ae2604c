"""Functions for workers under test: they hang, crash, lie and eat memory on demand."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any


def load(*_: Any) -> Callable[..., Any]:
    return serve


def load_failing() -> None:
    raise RuntimeError("no luck")


def load_dying() -> None:
    os._exit(3)


def serve(task: str, *arguments: Any) -> Any:
    if task == "hang":
        while True:
            pass
    if task == "hang in C":
        return pow(9, 9**9)
    if task == "die":
        os._exit(7)
    if task == "exit":
        sys.exit(1)
    if task == "allocate":
        return len(bytearray(8 << 30))
    if task == "recurse":
        return serve(task)
    if task == "sleep":
        time.sleep(arguments[0])
    if task == "lie":
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, b'{"value": "lie"}\n[1]\nnot json\n')
            except OSError:
                continue
    if task == "print":
        print("noise" * 100_000, flush=True)
    return os.getpid() if task == "pid" else [task, *arguments]


def exact(response: str, answer: str) -> bool:
    return response == answer


def with_prediction(response: str, answer: str) -> tuple[bool, str | None]:
    return response == answer, response or None


def wrong_type(response: str, answer: str) -> str:
    return "yes"


def hanging(response: str, answer: str) -> bool:
    while response == "hang":
        pass
    return True

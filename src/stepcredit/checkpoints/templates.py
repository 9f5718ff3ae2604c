"""A chat template is a program that came with a model: it is tried in a bounded process before it is used."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import warnings
from itertools import product
from typing import TYPE_CHECKING, Any

from stepcredit.chat_templates import template_variables
from stepcredit.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_CHARACTERS = 1_000_000
_MOST_BYTES = 1 << 30
_CPU_SECONDS = 10
_WALL_SECONDS = 120.0

_LONG = "What is 3 + 4? " * 200
_TURN = {"role": "user", "content": _LONG}, {"role": "assistant", "content": _LONG}
_CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "What is 3 + 4?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 + 4?"}],
    [*_TURN * 6, {"role": "user", "content": "Why?"}],
)


def check_template(tokenizer: PreTrainedTokenizerBase, where: object) -> None:
    """Refuse a chat template that does not end, fills the memory, or writes far more than it was given.

    Raises:
        CheckpointError: It does.
    """
    template = getattr(tokenizer, "chat_template", None)
    if template is None or not hasattr(os, "fork"):
        return
    key = json.dumps(template)
    if key not in _PROBLEMS:
        _PROBLEMS[key] = _problem(tokenizer)
    problem = _PROBLEMS[key]
    if problem is not None:
        raise CheckpointError(
            f"its chat template {problem}", where=str(where), hint="use the template that the model came with"
        )


_PROBLEMS: dict[str, str | None] = {}
"""Template to what is wrong with it; each is tried once per process."""


def _problem(tokenizer: Any) -> str | None:
    """What is wrong with a template, found in a child of this process; ``None`` if nothing is."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The child runs the template only, and takes no lock that a thread of this process may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _try(tokenizer, writer)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], _WALL_SECONDS)
        said = os.read(reader, 100).decode() if ready else ""
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if said == "fine":
        return None
    return said or f"does not finish within {_CPU_SECONDS} seconds and {_MOST_BYTES >> 20} MB"


def _try(tokenizer: Any, writer: int) -> None:
    """Render in the child, and leave it."""
    said = b"fine"
    try:
        with open("/proc/self/statm", encoding="ascii") as handle:
            used = int(handle.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_BYTES, used + _MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        for messages, prompts in product(_CONVERSATIONS, (False, True)):
            text = _rendered(tokenizer, messages, add_generation_prompt=prompts)
            if len(text) > _MOST_CHARACTERS:
                given = sum(len(message["content"]) for message in messages)
                said = f"makes {len(text):,} characters of {given:,}".encode()
                break
    except MemoryError:
        said = b""
    except OSError:
        pass  # No such limits or files here: nothing was tried.
    finally:
        os.write(writer, said)
        os._exit(0)


def _rendered(tokenizer: Any, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **template_variables(tokenizer),
            )
        )
    except MemoryError:
        raise
    except Exception:
        return ""  # Templates refuse conversations as they like; the one that matters is refused when used.

"""Many questions to one server at once, with the errors that a user reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from stepcredit.errors import DataError, UserError
from stepcredit.servers.server import (
    RefusedError,
    Server,
    ServerError,
    ServerLimits,
    UnreadableAnswerError,
)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Inquiry:
    """A server that is asked about many things.

    Args:
        hint: What to do where its answers cannot be read.

    Raises:
        UserError: The address is none.
    """

    def __init__(self, base_url: str, limits: ServerLimits, *, hint: str) -> None:
        self.server = Server(base_url, limits)
        self._hint = hint

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self.server.base_url

    def ask(self, address: str, body: Mapping[str, Any], read: Callable[[Any], Answer]) -> Answer:
        """Post a request, as :meth:`~stepcredit.servers.server.Server.post` does.

        Raises:
            UserError: The server cannot be reached, or refuses.
            DataError: Its answer cannot be read.
        """
        try:
            return self.server.post(address, body, read)
        except RefusedError as refusal:
            raise UserError(
                f"the server refuses the request ({refusal})",
                where=self.base_url,
                hint="check the address, the model's name, its context length and OPENAI_API_KEY",
            ) from refusal
        except UnreadableAnswerError as trouble:
            raise DataError(str(trouble), where=self.base_url, hint=self._hint) from trouble
        except ServerError as trouble:
            raise UserError(
                f"no answer ({trouble})", where=self.base_url, hint="check that the server is running"
            ) from trouble

    def ask_all(self, question: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """Answers to all items, in their order; after an error nobody waits for the others."""
        limits = self.server.limits
        threads = ThreadPoolExecutor(max_workers=max(1, min(limits.concurrency, len(items))))
        try:
            return list(threads.map(question, items))
        except BaseException:
            self.server.stop()
            self.server = Server(self.base_url, limits)
            raise
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

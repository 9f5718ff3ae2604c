"""Why a request is refused."""

from __future__ import annotations


class RequestError(Exception):
    """Becomes an answer with a status of 400 or above.

    Args:
        field: Where in the request, if it is in it.
        retry_after: Seconds after which the same request may be taken.
    """

    def __init__(
        self, status: int, message: str, field: str | None, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.retry_after = status, message, field, retry_after

"""How a server listens, and what it refuses."""

from __future__ import annotations

import os
from dataclasses import dataclass

from stepcredit.errors import MissingExtraError, UserError
from stepcredit.options import check_at_least_one, option

TOKEN_VARIABLE = "STEPCREDIT_TOKEN"
"""Environment variable with the bearer token that clients must send; unset, none is asked for."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where to listen, and the limits on requests."""

    host: str = option(
        "address to listen on; the default is reachable from this machine only", default="127.0.0.1"
    )
    port: int = option("port to listen on; 0 picks a free one", default=8080)
    batch_tokens: int = option("largest number of tokens per batch, over all clients", default=16384)
    exact: bool = option(
        "score each request in a batch of its own, so that its scores do not depend on other requests at "
        "all; many small requests can then take longer",
        default=False,
    )
    queue_tokens: int = option(
        "largest number of waiting tokens; when it is reached, requests are refused with 429 and Retry-After",
        default=1 << 20,
    )
    max_responses: int = option("largest number of responses per request", default=256)
    max_request_bytes: int = option("largest request body, in bytes", default=8 << 20)
    request_timeout: float = option("seconds after which a request is abandoned with 503", default=120.0)

    def __post_init__(self) -> None:
        check_at_least_one(self, "batch_tokens", "queue_tokens", "max_responses", "max_request_bytes")
        if not 0 <= self.port < 65536:
            raise UserError(f"must be between 0 and 65535, got {self.port}", where="--port")
        if not 0 < self.request_timeout < 1e9:
            raise UserError(f"must be above 0, got {self.request_timeout}", where="--request-timeout")


def token_from_environment() -> str | None:
    """The bearer token that clients must send.

    Raises:
        UserError: It is set but empty, or cannot be sent in a header.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            "must be printable ASCII without blanks",
            where=TOKEN_VARIABLE,
            hint="set another one, or unset it",
        )
    return token


def require_extra() -> None:
    """Say what to install where the server's packages are missing.

    Raises:
        MissingExtraError: One is.
    """
    from importlib.util import find_spec

    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "serve", needed_for="stepcredit serve")

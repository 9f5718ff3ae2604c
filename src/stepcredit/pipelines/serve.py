"""Serve reward models over HTTP, with a page for inspecting solutions.

Clients send a prompt and responses to POST /v1/score and receive what a score file holds. Requests from many
clients are scored in shared batches. The server can be reached from this machine only, unless --host says
otherwise; if the environment variable STEPCREDIT_TOKEN is set, requests must carry it as a bearer token. On
SIGINT or SIGTERM the server finishes the requests that it has accepted, reports their number and exits.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stepcredit.errors import UserError
from stepcredit.options import FieldsResult, option
from stepcredit.scorers.options import ScorerOptions
from stepcredit.serving.options import ServerOptions, require_extra, token_from_environment
from stepcredit.wording import quantity

if TYPE_CHECKING:
    import uvicorn

    from stepcredit.serving.service import Service


@dataclass(frozen=True, kw_only=True)
class Options(ScorerOptions):
    """Which reward models to serve, and how."""

    also: tuple[str, ...] = option(
        "another reward model, loaded with its own settings (may be repeated); the page shows "
        "two side by side",
        default=(),
        metavar="DIR",
    )
    server: ServerOptions = field(default_factory=ServerOptions)


@dataclass(frozen=True, kw_only=True)
class Result(FieldsResult):
    """What was served."""

    num_requests: int

    def to_text(self) -> str:
        """One line."""
        return f"ended, {quantity(self.num_requests, 'request')} answered"


def run(options: Options) -> Result:
    """Serve until the process is asked to end.

    Raises:
        UserError: A model cannot be loaded, or the port cannot be had.
    """
    require_extra()
    token = token_from_environment()
    listener = listen(options.server)
    service = _load(options)
    _serve(service, listener, token)
    return Result(num_requests=service.metrics.requests)


def listen(server: ServerOptions) -> socket.socket:
    """The open port: it is had before models are loaded, so that a mistake shows at once.

    Raises:
        UserError: It cannot be had.
    """
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((server.host, server.port))
        # From here on connections wait instead of being refused, also while models are loaded.
        listener.listen(2048)
    except (OSError, UnicodeError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"the server cannot listen there ({reason[0].lower()}{reason[1:]})",
            where=f"{server.host}:{server.port}",
            hint="choose another --port or --host",
        ) from error
    return listener


def _load(options: Options) -> Service:
    from stepcredit.scorers.remote import RemoteScorer
    from stepcredit.serving.batching import Batcher
    from stepcredit.serving.service import Service

    batchers: dict[str, Batcher] = {}
    given = [options, *(Options(prm=also, load=options.load) for also in options.also)]
    for one in given:
        name = Path(one.prm).resolve().name if Path(one.prm).exists() else one.prm
        names = (name, *(f"{name}-{number}" for number in range(2, len(given) + 2)))
        scorer = one.load_scorer()
        if isinstance(scorer, RemoteScorer):
            raise UserError("is already on a server", where=one.prm, hint="name a directory or hub id")
        batchers[next(free for free in names if free not in batchers)] = Batcher(
            scorer,
            batch_tokens=options.server.batch_tokens,
            queue_tokens=options.server.queue_tokens,
            exact=options.server.exact,
        )
    return Service(batchers, options.server)


def _serve(service: Service, listener: socket.socket, token: str | None) -> None:
    import uvicorn

    from stepcredit.serving.app import make_app
    from stepcredit.serving.connections import TimedProtocol

    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {', '.join(service.batchers)} at http://{shown}:{port}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        make_app(service, token=token),
        log_level="warning",
        http=TimedProtocol,
        ws="none",
        timeout_graceful_shutdown=round(service.options.request_timeout),
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 << 10,
        server_header=False,
    )
    _quiet_server(config).run(sockets=[listener])


def _quiet_server(config: uvicorn.Config) -> uvicorn.Server:
    """A server that ends like any command: uvicorn's own would raise the signal once more at the end."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            asked = (signal.SIGINT, signal.SIGTERM)
            before = {number: signal.signal(number, self.handle_exit) for number in asked}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    return Server(config)

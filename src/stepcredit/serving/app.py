"""The HTTP interface: routes, limits, errors as JSON that names the field."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepcredit import __version__
from stepcredit.data import score_to_json
from stepcredit.data.messages import response_turns
from stepcredit.errors import DataError
from stepcredit.serving.contracts import REFUSALS, add_contracts
from stepcredit.serving.errors import RequestError
from stepcredit.serving.limits import BodyLimit
from stepcredit.serving.page import CONTENT_POLICY, page
from stepcredit.serving.schemas import (
    BestAnswer,
    BestRequest,
    ErrorAnswer,
    ModelJSON,
    ModelsAnswer,
    ScoreAnswer,
    ScoreRequest,
)
from stepcredit.serving.service import Service
from stepcredit.types import ResponseScore, Rollout
from stepcredit.wording import quantity

_OPEN = frozenset({"/", "/healthz", "/readyz"})
"""Paths that need no token: they reveal nothing about a model or about anybody's texts."""


def make_app(service: Service, *, token: str | None = None) -> FastAPI:
    """The application.

    Args:
        token: Bearer token that every request must carry, but for the page and the health checks.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="stepcredit",
        version=__version__,
        summary="Process rewards for reasoning: a score per step, response and token.",
        lifespan=lifespan,
        docs_url=None,  # Its page would load scripts from elsewhere.
        redoc_url=None,
    )
    options = service.options
    app.add_middleware(BodyLimit, most=options.max_request_bytes, seconds=options.request_timeout)
    app.add_middleware(_Guard, service=service, token=token)
    _add_errors(app)
    _add_health(app, service)
    _add_scores(app, service)
    add_contracts(app, service)
    return app


class _Guard:
    """The token and the count of every request, before anything of it is read."""

    def __init__(self, app: ASGIApp, service: Service, token: str | None) -> None:
        self._app, self._service, self._token = app, service, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = None

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await (self._app if self._allows(scope) else _no_token)(scope, receive, noted)
        except Exception:
            status = 500
            raise
        finally:
            if status is not None:  # A client may go before it has said all that it wants.
                self._service.metrics.count(getattr(scope.get("route"), "path", "other"), status)

    def _allows(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in _OPEN:
            return True
        # Compared in constant time, as bytes: a header may hold any.
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, f"Bearer {self._token}".encode())


async def _no_token(scope: Scope, receive: Receive, send: Send) -> None:
    response = _refusal(RequestError(401, "the bearer token is missing or wrong", None))
    response.headers["WWW-Authenticate"] = "Bearer"
    await response(scope, receive, send)


def _refusal(error: RequestError) -> JSONResponse:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    body = {"error": {"message": error.message, "field": error.field}}
    return JSONResponse(body, status_code=error.status, headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return _refusal(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Where a field may be one of several things, the one that was read furthest is what was meant.
        furthest = max(error.errors(), key=lambda problem: len(problem["loc"]))
        if furthest["type"] == "json_invalid":
            problem = f"the body is not JSON, at character {furthest['loc'][-1]}"
            return _refusal(RequestError(422, problem, None))
        if isinstance(furthest["input"], bytes):
            return _refusal(RequestError(422, "send Content-Type: application/json", None))
        names = [str(part) for part in furthest["loc"] if part != "body"]
        # The things that it may be have names of their own, which no request holds.
        place = [name for name in names if "[" not in name and name != "str"]
        return _refusal(RequestError(422, str(furthest["msg"]), ".".join(place) or None))

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:
        return _refusal(RequestError(500, "the server failed to answer; its own output says why", None))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        response = _refusal(RequestError(error.status_code, str(error.detail), None))
        response.headers.update(error.headers or {})
        return response


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> HTMLResponse:
        headers = {"Content-Security-Policy": CONTENT_POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(page(), headers=headers)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses={503: {"model": ErrorAnswer}})
    async def readyz() -> dict[str, str]:
        """The models are loaded, and there is room for a request."""
        full = all(
            batcher.waiting_tokens >= service.options.queue_tokens for batcher in service.batchers.values()
        )
        if service.closing or full:
            raise RequestError(
                503, "the server is shutting down" if service.closing else "the queue is full", None
            )
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(service.metrics.text(), media_type=service.metrics.media_type)

    @app.get("/v1/models", tags=["scores"], responses={401: {"model": ErrorAnswer}})
    async def models() -> ModelsAnswer:
        """The models, the default first."""
        return ModelsAnswer(
            data=[
                ModelJSON(id=name, scorer=batcher.scorer.name, steps=batcher.step_rule)
                for name, batcher in service.batchers.items()
            ]
        )


def _add_scores(app: FastAPI, service: Service) -> None:
    @app.post("/v1/score", tags=["scores"], response_model=ScoreAnswer, responses=REFUSALS)
    async def score(request: ScoreRequest) -> JSONResponse:
        """Step, response and, on request, token rewards, in the order of the responses."""
        name, batcher = service.pick(request.model)
        scores = await service.score(batcher, _rollouts(request), "responses")
        return JSONResponse({"model": name, "scores": [_to_json(score, request) for score in scores]})

    @app.post("/v1/best-of-n", tags=["scores"], response_model=BestAnswer, responses=REFUSALS)
    async def best(request: BestRequest) -> JSONResponse:
        """The place of the best response, and all scores."""
        name, batcher = service.pick(request.model)
        scores = await service.score(batcher, _rollouts(request), "responses")
        values = [
            score.reward if request.by == "reward" else score.aggregates.get(request.by) for score in scores
        ]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            names = ", ".join(["reward", *scores[0].aggregates])
            raise RequestError(422, f"there is no aggregate {request.by!r}; use one of {names}", "by")
        answer = {"model": name, "index": known.index(max(known))}
        return JSONResponse({**answer, "scores": [_to_json(score, request) for score in scores]})


def _rollouts(request: ScoreRequest) -> list[Rollout]:
    prompt: Any = request.prompt
    if not isinstance(prompt, str):
        prompt = [turn.model_dump() for turn in prompt]
    extras = {} if request.tools is None else {"tools": request.tools}
    steps = [None] * len(request.responses) if request.steps is None else request.steps
    if len(steps) != len(request.responses):
        problem = f"{quantity(len(steps), 'list')} for {quantity(len(request.responses), 'response')}"
        raise RequestError(422, problem, "steps")
    rollouts = []
    for place, (response, listed) in enumerate(zip(request.responses, steps, strict=True)):
        text, turns = response, None
        if listed is not None and not isinstance(response, str):
            raise RequestError(422, "a list of turns has no listed steps", f"steps.{place}")
        if not isinstance(response, str):
            try:
                text, turns = response_turns([turn.model_dump() for turn in response], "response", "")
            except DataError as error:
                raise RequestError(422, error.problem, f"responses.{place}") from error
        rollouts.append(
            Rollout(
                id=str(place),
                prompt_id="0",
                prompt=prompt,
                response=str(text),
                turns=turns,
                finish_reason="stop" if request.finished else "length",
                extras=extras if listed is None else {**extras, "steps": listed},
            )
        )
    return rollouts


def _to_json(score: ResponseScore, request: ScoreRequest) -> dict[str, Any]:
    row = score_to_json(score)
    if not request.tokens:
        row.pop("token_rewards", None)
        row.pop("token_ends", None)
    return row

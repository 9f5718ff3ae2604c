"""A small client of ``stepcredit serve``, for programs that are threads and programs that are coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from stepcredit.data.scores import score_from_json
from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.types import PromptText, ResponseScore
from stepcredit.wording import quantity

if TYPE_CHECKING:
    import httpx

_RETRIED = frozenset({429, 502, 503, 504})
_LONGEST_WAIT = 60.0


class _Calls:
    """What both clients share: addresses, bodies, waits and errors."""

    def __init__(self, address: str, *, token: str | None, timeout: float, retries: int) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError("httpx", "client", needed_for="a reward model on a server") from error
        self._httpx = httpx
        self.address = address.rstrip("/")
        if not self.address.startswith(("http://", "https://")):
            raise UserError(f"{address!r} is not the address of a server", hint="write http://HOST:PORT")
        token = token if token is not None else os.environ.get("STEPCREDIT_TOKEN")
        self._settings: dict[str, Any] = {
            "base_url": self.address,
            "timeout": timeout,
            "headers": {} if token is None else {"Authorization": f"Bearer {token}"},
            "trust_env": False,
        }
        self._retries = retries

    def _waits(self) -> Iterator[float]:
        """Seconds to wait after each failure, growing, and random so that clients do not return as one."""
        for failures in range(self._retries):
            yield min(_LONGEST_WAIT, 0.25 * 2**failures) * (0.5 + random.random())

    def _asked(self, response: httpx.Response, wait: float) -> float:
        asked = response.headers.get("retry-after", "")
        return max(wait, min(float(asked), _LONGEST_WAIT)) if asked.isdigit() else wait

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        """The answer.

        Raises:
            UserError: It is an error, or not JSON.
        """
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UserError(
                f"answered with status {response.status_code} and no JSON object",
                where=self.address,
                hint="is it `stepcredit serve`?",
            )
        if response.status_code >= 400:
            problem = answer.get("error")
            problem = problem if isinstance(problem, dict) else {"message": str(answer)}
            field = f" at {problem['field']}" if problem.get("field") else ""
            raise UserError(
                f"refuses{field} ({problem.get('message')})",
                where=self.address,
                hint="set STEPCREDIT_TOKEN" if response.status_code == 401 else None,
            )
        return answer

    @contextlib.contextmanager
    def _sending(self, *, is_last: bool) -> Iterator[None]:
        """Pass over a connection that is lost, unless it was the last try.

        Raises:
            UserError: The request cannot be sent, or nobody answers the last try.
        """
        try:
            yield
        except UnicodeEncodeError as error:
            raise UserError(
                "cannot be sent half of a surrogate pair, which is not valid text", where=self.address
            ) from error
        except self._httpx.TransportError as error:
            if is_last:
                raise UserError(
                    f"does not answer ({error or type(error).__name__})",
                    where=self.address,
                    hint="start it with: stepcredit serve --prm PRM",
                ) from error

    def _scores(self, answer: dict[str, Any], count: int) -> list[ResponseScore]:
        rows = answer.get("scores")
        if not isinstance(rows, list) or len(rows) != count or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"does not answer with {quantity(count, 'score')}", where=self.address)
        return [score_from_json(row, f"{self.address}: score {place}") for place, row in enumerate(rows)]


def _sent(text: PromptText) -> Any:
    """Text, or turns without what is null in them, as fields of tables are that other turns have."""
    if isinstance(text, str):
        return text
    return [
        {name: value for name, value in turn.items() if value is not None or name == "content"}
        for turn in text
    ]


def _body(
    prompt: PromptText,
    responses: Sequence[PromptText],
    *,
    tokens: bool,
    finished: bool,
    model: str | None,
    tools: Sequence[Any] | None,
    steps: Sequence[Sequence[str] | None] | None = None,
) -> dict[str, Any]:
    return {
        "prompt": _sent(prompt),
        "responses": [_sent(response) for response in responses],
        "tokens": tokens,
        "finished": finished,
        **({} if model is None else {"model": model}),
        **({"tools": list(tools)} if tools else {}),
        **({} if steps is None else {"steps": [None if texts is None else list(texts) for texts in steps]}),
    }


class Client(_Calls):
    """Asks a server for scores, waiting where it must.

    A request that is refused for the moment (429, 502, 503, 504) or loses its connection is sent again after
    a growing wait, or after the one that the server asks for.

    Args:
        address: ``http://HOST:PORT``.
        token: Bearer token; by default the environment variable ``STEPCREDIT_TOKEN``.
        timeout: Seconds for an answer.
        retries: How often a request is sent again.

    Raises:
        MissingExtraError: httpx is not installed.
        UserError: It is not an address.
    """

    def __init__(
        self, address: str, *, token: str | None = None, timeout: float = 120.0, retries: int = 5
    ) -> None:
        super().__init__(address, token=token, timeout=timeout, retries=retries)
        self._http = self._httpx.Client(**self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(
        self,
        prompt: PromptText,
        responses: Sequence[PromptText],
        *,
        tokens: bool = False,
        finished: bool = True,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        steps: Sequence[Sequence[str] | None] | None = None,
    ) -> list[ResponseScore]:
        """Score responses to one prompt, in order.

        Args:
            prompt: Text or messages.
            responses: At least one: texts, or lists of turns, of which the assistant's are scored.
            tokens: Whether scores hold token rewards.
            finished: Whether the responses have ended.
            model: One of :meth:`models`.
            tools: Schemas of functions that the assistant may call.
            steps: For each response the texts of its steps, or ``None`` to split it by the model's rule.

        Raises:
            UserError: The server refuses, or does not answer.
        """
        body = _body(
            prompt, responses, tokens=tokens, finished=finished, model=model, tools=tools, steps=steps
        )
        return self._scores(self._call("POST", "/v1/score", body), len(responses))

    def best_of_n(
        self,
        prompt: PromptText,
        responses: Sequence[PromptText],
        *,
        by: str = "reward",
        model: str | None = None,
        tools: Sequence[Any] | None = None,
    ) -> tuple[int, list[ResponseScore]]:
        """The place of the best response, and all scores.

        Raises:
            UserError: The server refuses, or does not answer.
        """
        body = _body(prompt, responses, tokens=False, finished=True, model=model, tools=tools) | {"by": by}
        answer = self._call("POST", "/v1/best-of-n", body)
        return int(answer["index"]), self._scores(answer, len(responses))

    def models(self) -> dict[str, tuple[str, str]]:
        """Names of the models, the default first: what scores them, and their step rules.

        Raises:
            UserError: The server refuses, or does not answer.
        """
        models = self._call("GET", "/v1/models").get("data")
        try:
            return {str(one["id"]): (str(one["scorer"]), str(one["steps"])) for one in models or ()}
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"does not list its models ({error})", where=self.address, hint="is it `stepcredit serve`?"
            ) from error

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        waits = self._waits()
        while True:
            wait = next(waits, None)
            with self._sending(is_last=wait is None):
                response = self._http.request(method, path, json=body)
                if response.status_code not in _RETRIED or wait is None:
                    return self._read(response)
                wait = self._asked(response, wait)
            assert wait is not None, "the last try was answered or raised"
            time.sleep(wait)


class AsyncClient(_Calls):
    """As :class:`Client`, for coroutines."""

    def __init__(
        self, address: str, *, token: str | None = None, timeout: float = 120.0, retries: int = 5
    ) -> None:
        super().__init__(address, token=token, timeout=timeout, retries=retries)
        self._http = self._httpx.AsyncClient(**self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def score(
        self,
        prompt: PromptText,
        responses: Sequence[PromptText],
        *,
        tokens: bool = False,
        finished: bool = True,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        steps: Sequence[Sequence[str] | None] | None = None,
    ) -> list[ResponseScore]:
        """As :meth:`Client.score`."""
        body = _body(
            prompt, responses, tokens=tokens, finished=finished, model=model, tools=tools, steps=steps
        )
        return self._scores(await self._call("POST", "/v1/score", body), len(responses))

    async def best_of_n(
        self,
        prompt: PromptText,
        responses: Sequence[PromptText],
        *,
        by: str = "reward",
        model: str | None = None,
        tools: Sequence[Any] | None = None,
    ) -> tuple[int, list[ResponseScore]]:
        """As :meth:`Client.best_of_n`."""
        body = _body(prompt, responses, tokens=False, finished=True, model=model, tools=tools) | {"by": by}
        answer = await self._call("POST", "/v1/best-of-n", body)
        return int(answer["index"]), self._scores(answer, len(responses))

    async def _call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        waits = self._waits()
        while True:
            wait = next(waits, None)
            with self._sending(is_last=wait is None):
                response = await self._http.request(method, path, json=body)
                if response.status_code not in _RETRIED or wait is None:
                    return self._read(response)
                wait = self._asked(response, wait)
            assert wait is not None, "the last try was answered or raised"
            await asyncio.sleep(wait)

"""Sampling from any server with an OpenAI-compatible interface, by the official client (extra ``openai``)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.generators.pacing import LONGEST_HOLD, Pace, asked_wait
from stepcredit.generators.prompts import PromptFormat
from stepcredit.generators.records import make_rollout, sampling_json
from stepcredit.generators.stopping import cut_at_stop
from stepcredit.generators.streams import stream_key
from stepcredit.runs import Ledger, warn
from stepcredit.types import FINISH_REASONS, FinishReason, GenerationFailure, GenerationRequest, Rollout

if TYPE_CHECKING:
    import openai

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How hard a server is pressed.

    Attributes:
        concurrency: Requests that wait for an answer at once.
        timeout: Seconds after which a request counts as failed.
        retries: How often a request is sent again after the first time.
    """

    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 8


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    reason: FinishReason
    num_prompt_tokens: int | None
    num_generated_tokens: int | None


class _UnreadableAnswerError(Exception):
    """An answer that is not what the interface promises; another try may get a better one."""


class _RefusedError(Exception):
    """The server will not answer this request."""


class _UnreachableError(Exception):
    """No connection, however often it was tried."""


@dataclass(frozen=True, slots=True)
class _Line:
    """What the threads of one run share."""

    client: openai.OpenAI
    pace: Pace


class OpenAIGenerator:
    """Draws responses from a server.

    Every sample is a request of its own, with a seed of its own made from (seed, prompt id, index, response
    prefix); whether a server draws the same for the same seed is up to the server.

    A request that is refused for the moment (status 408, 409, 425, 429 or 5xx), times out, loses its
    connection or gets an answer that cannot be read is sent again after a growing wait, or after the wait
    that the server asks for, which then holds for all requests. One that is refused for good is a failure,
    unless no other could do better (key, address or model name wrong): that is an error.

    The key comes from the environment variable ``OPENAI_API_KEY`` only.

    Args:
        model: The model's name at the server.
        base_url: Address, e.g. ``http://localhost:8000/v1``; else ``OPENAI_BASE_URL``, else OpenAI's own.
        prompt_format: Given one, prompts are formatted and tokenised here and sent as token ids to the
            completions interface, which can continue a response; else messages go to the chat interface,
            which cannot.
        name: Written to ``Rollout.policy``; by default the model's name.
        limits: How hard the server is pressed.

    Attributes:
        ledger: Tokens as the server counts them.

    Raises:
        MissingExtraError: The client is not installed.
        UserError: There is neither an address nor a key, or the address holds a password.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        prompt_format: PromptFormat | None = None,
        name: str | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("openai", "openai", needed_for="--generator openai") from error
        self._errors = openai
        self._model, self._name = model, name or model
        self._format = prompt_format
        self._limits = limits or ServerLimits()
        self.ledger = Ledger()
        address = base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get("OPENAI_API_KEY")
        if key is None and address is None:
            raise UserError(
                "the environment variable OPENAI_API_KEY is not set",
                hint="set it, or name a server with --base-url",
            )
        if address is not None and urlsplit(address).username is not None:
            raise UserError(
                "the address holds a user name or password",
                where="--base-url",
                hint="give keys in the environment variable OPENAI_API_KEY",
            )
        self._key, self._base_url = key or "none", address
        self._told = False

    @property
    def name(self) -> str:
        """The policy's name."""
        return self._name

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts as they come in, and a failure for each sample that could not be had.

        Raises:
            UserError: No request can succeed: key, address or model name are wrong, the server cannot be
                reached at all, or a response is to be continued by the chat interface.
        """
        line = _Line(self._connect(), Pace())
        executor = ThreadPoolExecutor(self._limits.concurrency, thread_name_prefix="openai")
        tasks = ((request, index) for request in requests for index in request.indices)
        running: dict[Future[_Answer], tuple[GenerationRequest, int]] = {}
        unreachable = 0
        try:
            while True:
                while len(running) < self._limits.concurrency and (task := next(tasks, None)) is not None:
                    running[executor.submit(self._ask, line, *task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    request, index = running.pop(future)
                    try:
                        answer = future.result()
                    except _UnreachableError as error:
                        unreachable += 1
                        if unreachable >= self._limits.concurrency:
                            raise self._no_use(f"cannot be reached ({error})") from error
                        yield GenerationFailure(request.prompt.id, (index,), str(error))
                    except (_UnreadableAnswerError, _RefusedError, DataError, self._errors.APIError) as error:
                        yield GenerationFailure(request.prompt.id, (index,), _one_line(error))
                    else:
                        unreachable = 0
                        yield self._rollout(request, index, answer)
        finally:
            line.pace.stop()
            executor.shutdown(wait=False, cancel_futures=True)
            line.client.close()

    def _connect(self) -> openai.OpenAI:
        # Retries are done here: the client's own do not cover answers that cannot be read, and each of its
        # requests waits alone where the server asks all to wait.
        return self._errors.OpenAI(
            api_key=self._key, base_url=self._base_url, timeout=self._limits.timeout, max_retries=0
        )

    def _rollout(self, request: GenerationRequest, index: int, answer: _Answer) -> Rollout:
        self.ledger.prompt_tokens += answer.num_prompt_tokens or 0
        self.ledger.generated_tokens += answer.num_generated_tokens or 0
        cut = None if request.sampling.keep_stop else cut_at_stop(answer.text, request.sampling.stop)
        return make_rollout(
            request,
            index,
            text=answer.text if cut is None else cut,
            reason=answer.reason if cut is None else "stop",
            policy=self._name,
            sampling=sampling_json(request.sampling),
            num_prompt_tokens=answer.num_prompt_tokens,
            num_generated_tokens=answer.num_generated_tokens,
        )

    def _ask(self, line: _Line, request: GenerationRequest, index: int) -> _Answer:
        """Send one request until it is answered, refused for good, or has failed too often."""
        for failures in range(1, self._limits.retries + 2):
            line.pace.wait()
            if line.pace.stopped:
                break
            last = failures > self._limits.retries
            try:
                return self._send(line, request, index)
            except self._errors.APIStatusError as error:
                self._check_hopeless(error)
                if last or (error.status_code < 500 and error.status_code not in _RETRIED_STATUSES):
                    raise
                if seconds := asked_wait(error.response.headers):
                    line.pace.hold(min(seconds, LONGEST_HOLD))
                    continue
            except self._errors.APITimeoutError:
                if last:
                    raise
                self._tell_once(f"no answer within {self._limits.timeout:g} seconds")
            except self._errors.APIConnectionError as error:
                if last:
                    raise _UnreachableError(_one_line(error.__cause__ or error)) from error
                self._tell_once(f"no connection ({_one_line(error.__cause__ or error)})")
            except _UnreadableAnswerError:
                if last:
                    raise
            line.pace.back_off(failures)
        raise _RefusedError("called off")

    def _tell_once(self, problem: str) -> None:
        """Say why nothing comes, the first time, since trying again takes minutes."""
        if not self._told:
            self._told = True
            warn(f"{self._base_url}: {problem}; each request is tried {self._limits.retries} more times")

    def _send(self, line: _Line, request: GenerationRequest, index: int) -> _Answer:
        sampling = request.sampling
        seed = stream_key(sampling.seed, request.prompt.id, index, request.response_prefix)
        settings: dict[str, Any] = {
            "model": self._model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed >> 33,
        }
        if sampling.stop:
            settings["stop"] = list(sampling.stop)
        # Not in OpenAI's own interface, but in those of vLLM, SGLang and llama.cpp.
        extra = {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "include_stop_str_in_output": sampling.keep_stop,
        }
        settings["extra_body"] = {name: value for name, value in extra.items() if value}
        response = self._create(line.client, request, settings)
        if seconds := asked_wait(response.headers):
            line.pace.hold(min(seconds, LONGEST_HOLD))
        try:
            return _read(json.loads(response.content))
        except (ValueError, RecursionError) as error:
            raise _UnreadableAnswerError(f"the answer is not JSON ({error})") from error

    def _create(self, client: openai.OpenAI, request: GenerationRequest, settings: dict[str, Any]) -> Any:
        if self._format is not None:
            opening = self._format.opening(
                request.prompt.prompt, request.response_prefix, request.response_prefix_ids
            )
            return client.completions.with_raw_response.create(prompt=list(opening.token_ids), **settings)
        if request.response_prefix:
            raise UserError("the chat interface cannot continue a response", hint="use --api completions")
        prompt = request.prompt.prompt
        messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return client.chat.completions.with_raw_response.create(messages=messages, **settings)

    def _check_hopeless(self, error: openai.APIStatusError) -> None:
        """Raise where no other request could do better."""
        if error.status_code in (401, 403, 404):
            raise self._no_use(f"refuses ({_one_line(error)})") from error

    def _no_use(self, problem: str) -> UserError:
        return UserError(
            problem,
            where=self._base_url or "the server",
            hint="check --base-url, --model and OPENAI_API_KEY; the same command then goes on from here",
        )


def _read(answer: Any) -> _Answer:
    """Take out what is needed, whatever the server adds."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        ending = choice["finish_reason"]
    except (KeyError, IndexError, TypeError) as error:
        raise _UnreadableAnswerError(f"the answer has no {error}") from error
    reason = FINISH_REASONS.get(ending.lower()) if isinstance(ending, str) else None
    if reason is None:
        raise _RefusedError(f"the response ended for the reason {str(ending)[:80]!r}")
    if not isinstance(text, str) or not _is_unicode(text):
        raise _UnreadableAnswerError("the answer holds no text")
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return _Answer(text, reason, _number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens")))


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold the text: a server may send half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

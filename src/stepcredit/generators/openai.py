"""Sampling from any server with an OpenAI-compatible interface."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from stepcredit.conversations import as_messages, tools_of
from stepcredit.errors import DataError, UserError
from stepcredit.generators.candidates import read_candidates
from stepcredit.generators.prompts import PromptFormat
from stepcredit.generators.records import make_rollout, sampling_json
from stepcredit.generators.stopping import cut_at_stop
from stepcredit.generators.streams import stream_key
from stepcredit.runs import Ledger
from stepcredit.servers import (
    RefusedError,
    Server,
    ServerError,
    ServerLimits,
    UnreachableError,
    UnreadableAnswerError,
)
from stepcredit.servers.finish_reasons import FINISH_REASONS
from stepcredit.types import (
    FinishReason,
    GenerationFailure,
    GenerationRequest,
    Rollout,
    Sampling,
)

OPENAI = "https://api.openai.com/v1"
_MATCHED = ("stop_reason", "matched_stop")
"""Where vLLM and SGLang say which stop string ended a response."""
_HOPELESS_STATUSES = frozenset({401, 403, 404})


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server says of one sample.

    Attributes:
        text: After the response prefix; ``None`` for an answer in words that never began.
        thinking: What a reasoning parser took out of the text.
        source_reason: Why it ended, as the server names it.
        stop: The stop string that ended it, where the server says so.
        log_probs: Each token's text, and its candidates' log-probabilities (nats) by their texts, where they
            were asked for and given.
    """

    text: str | None
    thinking: str | None
    source_reason: str | None
    num_prompt_tokens: int | None
    num_generated_tokens: int | None
    log_probs: Sequence[tuple[str, Mapping[str, float]]] = ()
    stop: str = ""

    @property
    def reason(self) -> FinishReason | None:
        """Why it ended; ``None`` where it neither ended by itself nor reached the limit."""
        return FINISH_REASONS.get((self.source_reason or "").lower())


class OpenAIGenerator:
    """Draws responses from a server.

    Every sample is a request of its own, with a seed of its own made from (seed, prompt id, index, response
    prefix); whether a server draws the same for the same seed is up to the server. What is tried again is in
    :class:`~stepcredit.servers.Server`. A request that is refused for good is a failure, unless no other
    could do better (key, address or model name wrong): that is an error.

    Where the server's reasoning parser takes the thinking out of the message, it is put back into the
    response, between ``<think>`` and ``</think>``.

    Args:
        base_url: Address, e.g. ``http://localhost:8000/v1``; else ``OPENAI_BASE_URL``, else OpenAI's own.
        prompt_format: Given one, prompts are formatted and tokenised here and sent as token ids to the
            completions interface, which can continue a response; else messages go to the chat interface,
            which cannot.
        name: Written to ``Rollout.policy``; by default the model's name.
        seeds: Whether requests hold seeds; some servers take none.
        template_arguments: For the server's chat template, in messages to the chat interface.

    Attributes:
        ledger: Tokens as the server counts them.

    Raises:
        UserError: There is neither an address nor a key, or the address is none.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        prompt_format: PromptFormat | None = None,
        name: str | None = None,
        limits: ServerLimits | None = None,
        seeds: bool = True,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self.name = model, name or model
        self._format = prompt_format
        self._limits = limits or ServerLimits()
        self._seeds = seeds
        self._template_arguments = dict(template_arguments or {})
        self.ledger = Ledger()
        address = base_url or os.environ.get("OPENAI_BASE_URL")
        if address is None and "OPENAI_API_KEY" not in os.environ:
            raise UserError(
                "the environment variable OPENAI_API_KEY is not set",
                hint="set it, or name a server with --base-url",
            )
        self._address = address or OPENAI
        Server(self._address, self._limits)  # what is wrong with the address is said before anything else

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts as they come in, and a failure for each sample that could not be had.

        Raises:
            UserError: No request can succeed: key, address or model name are wrong, the server cannot be
                reached at all, or a response is to be continued by the chat interface.
        """
        server = Server(self._address, self._limits)
        executor = ThreadPoolExecutor(self._limits.concurrency, thread_name_prefix="openai")
        tasks = ((request, index) for request in requests for index in request.indices)
        running: dict[Future[_Answer], tuple[GenerationRequest, int]] = {}
        unreachable = 0
        try:
            while True:
                while len(running) < self._limits.concurrency and (task := next(tasks, None)) is not None:
                    running[executor.submit(self._ask, server, *task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    request, index = running.pop(future)
                    try:
                        answer = future.result()
                    except (ServerError, DataError) as trouble:
                        unreachable += isinstance(trouble, UnreachableError)
                        if unreachable >= self._limits.concurrency:
                            raise self._no_use(f"cannot be reached ({trouble})") from trouble
                        if isinstance(trouble, RefusedError) and trouble.status in _HOPELESS_STATUSES:
                            raise self._no_use(f"refuses the request ({trouble})") from trouble
                        yield GenerationFailure(request.prompt.id, (index,), str(trouble))
                    else:
                        unreachable = 0
                        yield self._rollout(request, index, answer)
        finally:
            server.stop()
            executor.shutdown(wait=False, cancel_futures=True)

    def _rollout(self, request: GenerationRequest, index: int, answer: _Answer) -> Rollout:
        self.ledger.prompt_tokens += answer.num_prompt_tokens or 0
        self.ledger.generated_tokens += answer.num_generated_tokens or 0
        cut = None
        if answer.text is not None and not request.sampling.keep_stop:
            cut = cut_at_stop(answer.text, request.sampling.stop)
        text = answer.text if cut is None else cut
        if request.sampling.keep_stop and cut_at_stop(text or "", request.sampling.stop) is None:
            # A server that knows no way to keep the stop string may still say which one it was.
            text = (text or "") + (answer.stop if answer.stop in request.sampling.stop else "")
        rollout = make_rollout(
            request,
            index,
            text=_with_thinking(text, answer.thinking),
            reason=answer.reason if cut is None else "stop",
            source_reason=answer.source_reason if cut is None else None,
            policy=self.name,
            sampling=sampling_json(request.sampling),
            num_prompt_tokens=answer.num_prompt_tokens,
            num_generated_tokens=answer.num_generated_tokens,
        )
        if not answer.log_probs:
            return rollout
        return replace(rollout, extras={**rollout.extras, "token_log_probs": answer.log_probs})

    def _ask(self, server: Server, request: GenerationRequest, index: int) -> _Answer:
        path, body = self._request(request)
        body |= _settings(request.sampling)
        if number := request.sampling.log_probs:
            chat = {"logprobs": True, "top_logprobs": number}
            body |= {"logprobs": number} if path == "completions" else chat
        if self._seeds:
            key = stream_key(request.sampling.seed, request.prompt.id, index, request.response_prefix)
            body["seed"] = key >> 33
        return server.post(path, body, _read)

    def _request(self, request: GenerationRequest) -> tuple[str, dict[str, Any]]:
        """Path, model and prompt."""
        if self._format is not None:
            opening = self._format.opening_of(request)
            return "completions", {"model": self._model, "prompt": list(opening.token_ids)}
        if request.response_prefix:
            raise UserError("the chat interface cannot continue a response", hint="use --api completions")
        prompt = request.prompt.prompt
        messages = as_messages(prompt)
        body: dict[str, Any] = {"model": self._model, "messages": messages}
        if tools := tools_of(request.prompt.extras, request.prompt.id):
            body["tools"] = tools
        if messages[-1]["role"] == "assistant":  # as vLLM and SGLang take a turn that is to be continued
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self._template_arguments:
            body["chat_template_kwargs"] = self._template_arguments
        return "chat/completions", body

    def _no_use(self, problem: str) -> UserError:
        return UserError(
            problem,
            where=self._address,
            hint="check --base-url, --model and OPENAI_API_KEY; the same command then continues from here",
        )


def _settings(sampling: Sampling) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
    }
    # Beside `stop` not in OpenAI's own interface, but in those of vLLM, SGLang and llama.cpp.
    extra = {
        "stop": list(sampling.stop),
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "include_stop_str_in_output": sampling.keep_stop,
        "no_stop_trim": sampling.keep_stop,  # SGLang's name for it
    }
    return settings | {name: value for name, value in extra.items() if value}


def _read(answer: Any) -> _Answer:
    """Take out what is needed, whatever the server adds.

    Raises:
        UnreadableAnswerError: It is not there, or not what it must be.
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"] if "message" in choice else {"content": choice["text"]}
        text, source_reason = message["content"], choice["finish_reason"]
    except (KeyError, IndexError, TypeError) as error:
        raise UnreadableAnswerError(f"the answer has no {error}") from error
    if not isinstance(source_reason, str | None):
        raise UnreadableAnswerError("the answer's finish_reason is not text")
    thinking = message.get("reasoning_content") or message.get("reasoning") or None
    # Cut off in its thinking, a message has no content; nor has one that is a call of a tool.
    is_cut_off = FINISH_REASONS.get((source_reason or "").lower()) != "stop"
    if not (isinstance(text, str) or (text is None and (thinking is not None or is_cut_off))):
        raise UnreadableAnswerError("the answer holds no text")
    for part in (text, thinking, source_reason):
        _check_text(part)
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return _Answer(
        text,
        thinking,
        source_reason,
        _number(usage.get("prompt_tokens")),
        _number(usage.get("completion_tokens")),
        read_candidates(choice.get("logprobs")),
        next((stop for name in _MATCHED if isinstance(stop := choice.get(name), str)), ""),
    )


def _check_text(part: Any) -> None:
    if part is not None and not isinstance(part, str):
        raise UnreadableAnswerError("the answer's thinking is not text")
    try:
        (part or "").encode()
    except UnicodeEncodeError as error:
        raise UnreadableAnswerError("the answer's text holds half of a surrogate pair") from error


def _with_thinking(text: str | None, thinking: str | None) -> str:
    """The response as the model wrote it, where a reasoning parser took it apart.

    Parsers cut at the tags; some then strip what they found. White space at one of the cuts shows that this
    one does not, so that nothing is to be added; else the blank lines are those that models write.
    """
    if thinking is None:
        return text or ""
    is_whole = thinking != thinking.strip() or (text is not None and text != text.lstrip())
    opening = f"<think>{thinking}" if is_whole else f"<think>\n{thinking}"
    if text is None:
        return opening
    return f"{opening}</think>{text}" if is_whole else f"{opening}\n</think>\n\n{text}"


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None

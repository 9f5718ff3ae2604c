"""Log-probabilities from a server, so that a model need not be loaded here."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import DataError, UserError
from stepcredit.runs import hash_json, warn
from stepcredit.types import Encoded

INTERFACES = ("echo", "prompt-logprobs", "token-ids")
"""How a server is asked; see :class:`RemoteTokenLogProbs`."""

_RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_PROBE = Encoded(token_ids=tuple(range(3, 35)), scored_start=1)


class RemoteTokenLogProbs:
    """A policy or a reference that a server holds.

    Interfaces:

    - ``echo``: OpenAI's completions with ``echo`` and ``logprobs``.
    - ``prompt-logprobs``: the same, with vLLM's ``prompt_logprobs`` in the place of ``logprobs``.
    - ``token-ids``: vLLM's ``/inference/v1/generate`` with ``prompt_logprob_token_ids`` and
      ``prompt_logprob_start``, which gathers just the scored tokens (versions that have it).

    Prompts are sent as token ids, so the server's model must have this side's tokenizer. A key is taken
    from the environment variable ``OPENAI_API_KEY``, if it is set.

    Args:
        base_url: Address with version, e.g. ``http://localhost:8000/v1``.
        model: The model's name on the server.
        interface: One of :data:`INTERFACES`.
        concurrency: Requests that wait for an answer at once.
        timeout: Seconds after which a request counts as failed.
        retries: How often a request is sent again after a fault that may pass.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        interface: str = "echo",
        concurrency: int = 16,
        timeout: float = 600.0,
        retries: int = 6,
    ) -> None:
        if interface not in INTERFACES:
            raise UserError(f"no interface {interface!r}", hint=f"use {', '.join(INTERFACES)}")
        if not base_url.startswith(("http://", "https://")):
            raise UserError("is not an address", where=base_url, hint="start it with http:// or https://")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.interface = interface
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the model's name and of what it says of a fixed sequence, to 0.1 nats.

        A server does not tell its weights; the numbers tell models apart, also under one name.
        """
        if self._fingerprint is None:
            probe = [round(float(value), 1) for value in self._score(_PROBE)]
            self._fingerprint = hash_json({"remote": self.model, "probe": probe})
        return self._fingerprint

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order, in nats.

        Raises:
            UserError: The server cannot be reached or refuses.
            DataError: Its answer does not hold one log-probability a token.
        """
        with ThreadPoolExecutor(max_workers=max(1, min(self.concurrency, len(encoded)))) as threads:
            return list(threads.map(self._score, encoded))

    def _score(self, item: Encoded) -> NDArray[np.float32]:
        if item.num_scored == 0:
            return np.zeros(0, np.float32)
        path, body = self._request(item)
        answer = self._post(path, body)
        try:
            values = _READERS[self.interface](answer, item)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"the answer holds no log-probabilities of the prompt ({type(error).__name__}: {error})",
                where=self.base_url,
                hint="use another --server-interface, or a server that echoes log-probabilities",
            ) from error
        missing = int(np.isnan(values).sum())
        if values.shape != (item.num_scored,) or missing:
            raise DataError(
                f"gave {values.size - missing} log-probabilities for {item.num_scored} scored tokens",
                where=self.base_url,
                hint="check that the server's model and tokenizer are those of --prm",
            )
        return values

    def _request(self, item: Encoded) -> tuple[str, dict[str, Any]]:
        """Path and body of the request for one sequence."""
        tokens = list(item.token_ids)
        if self.interface == "token-ids":
            sampling = {
                "max_tokens": 1,
                "temperature": 1.0,
                "prompt_logprob_token_ids": [[token] for token in tokens[item.scored_start :]],
                "prompt_logprob_start": item.scored_start - 1,
            }
            address = self.base_url.removesuffix("/v1") + "/inference/v1/generate"
            return address, {"model": self.model, "token_ids": tokens, "sampling_params": sampling}
        body: dict[str, Any] = {"model": self.model, "prompt": tokens, "max_tokens": 1, "temperature": 1.0}
        body |= {"echo": True, "logprobs": 1} if self.interface == "echo" else {"prompt_logprobs": 1}
        return f"{self.base_url}/completions", body

    def _post(self, address: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if last or error.code not in _RETRIED_STATUSES:
                    raise UserError(
                        f"the server answered {error.code}: {_reason(error)}",
                        where=address,
                        hint="check the address, the model's name, its context length and OPENAI_API_KEY",
                    ) from error
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                if last:
                    raise UserError(
                        f"no answer ({error})", where=address, hint="check that the server is running"
                    ) from error
                if attempt == 0:
                    warn(f"{address}: no answer ({error}); tried {self.retries} more times")
            time.sleep(min(0.25 * 2**attempt, 30.0))
        raise AssertionError("unreachable")


def _read_echo(answer: Any, item: Encoded) -> NDArray[np.float32]:
    """One value a token of prompt and completion, none for the first."""
    values = answer["choices"][0]["logprobs"]["token_logprobs"]
    if len(values) not in (len(item.token_ids), len(item.token_ids) + 1):
        raise ValueError(f"{len(values)} values for {len(item.token_ids)} tokens")
    return np.array(values[item.scored_start : len(item.token_ids)], np.float32)


def _read_prompt_logprobs(answer: Any, item: Encoded) -> NDArray[np.float32]:
    """For each token of the prompt candidates by id, itself among them."""
    rows = answer["choices"][0]["prompt_logprobs"]
    pairs = zip(rows[item.scored_start :], item.token_ids[item.scored_start :], strict=True)
    return np.array([row[str(token)]["logprob"] for row, token in pairs], np.float32)


def _read_token_ids(answer: Any, item: Encoded) -> NDArray[np.float32]:
    """A matrix of one row a scored token, as a base64-encoded ``.npy``."""
    content = io.BytesIO(base64.b64decode(answer["prompt_token_id_logprobs"]))
    matrix = np.load(content, allow_pickle=False)
    return np.asarray(matrix[: item.num_scored, 0], np.float32)


_READERS = {"echo": _read_echo, "prompt-logprobs": _read_prompt_logprobs, "token-ids": _read_token_ids}


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says is wrong, in one line."""
    text = error.read(2000).decode("utf-8", errors="replace")
    try:
        content = json.loads(text)
        text = str(content.get("message") or content["error"]["message"])
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:300] or str(error.reason)

"""Log-probabilities from a server, so that a model need not be loaded here."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import UserError
from stepcredit.logprobs.checking import check_log_probs
from stepcredit.runs import hash_json
from stepcredit.servers import Inquiry, ServerLimits, UnreadableAnswerError
from stepcredit.types import Encoded

INTERFACES = ("echo", "prompt-logprobs", "token-ids")
"""How a server is asked; see :class:`RemoteTokenLogProbs`."""

_PROBE = Encoded(token_ids=tuple(range(3, 35)), scored_start=1)
_LIMITS = ServerLimits(retries=6)


class RemoteTokenLogProbs:
    """A policy or a reference that a server holds.

    Interfaces:

    - ``echo``: OpenAI's completions with ``echo`` and ``logprobs``.
    - ``prompt-logprobs``: the same, with vLLM's ``prompt_logprobs`` in the place of ``logprobs``.
    - ``token-ids``: vLLM's ``/inference/v1/generate`` with ``prompt_logprob_token_ids`` and
      ``prompt_logprob_start``, which gathers just the scored tokens (versions that have it).

    Prompts are sent as token ids, so the server's model must have this side's tokenizer: of the first
    sequence its names of the tokens are compared with ``spell``'s. What cannot be a log-probability is an
    error. A key is taken from the environment variable ``OPENAI_API_KEY``, if it is set.

    Args:
        base_url: Address with version, e.g. ``http://localhost:8000/v1``.
        model: The model's name on the server.
        interface: One of :data:`INTERFACES`.
        limits: How hard the server is pressed.
        spell: A token id as text, by the tokenizer that made the ids; without it nothing is compared.

    Raises:
        UserError: There is no such interface, or the address is none.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        interface: str = "echo",
        limits: ServerLimits = _LIMITS,
        spell: Callable[[int], str] | None = None,
    ) -> None:
        if interface not in INTERFACES:
            raise UserError(f"no interface {interface!r}", hint=f"use {', '.join(INTERFACES)}")
        hint = "use another --server-interface, or a server that echoes log-probabilities"
        self.inquiry = Inquiry(base_url, limits, hint=hint)
        self.model = model
        self.interface = interface
        self.spell = spell
        self._is_compared = spell is None
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the model's name and of what it says of a fixed sequence, to 0.1 nats.

        A server does not tell its weights; the numbers tell models apart, also under one name.
        """
        if self._fingerprint is None:
            probe = [round(float(value), 1) for value in self._ask(_PROBE)[0]]
            self._fingerprint = hash_json({"remote": self.model, "probe": probe})
        return self._fingerprint

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order, in nats.

        Raises:
            UserError: The server cannot be reached or refuses, its answers cannot be read, or its tokens are
                not ours.
            TokenError: It gives a token something that is no log-probability.
        """
        items = list(encoded)
        if not self._is_compared and (first := next((item for item in items if item.num_scored), None)):
            self._compare_tokens(first)
        return self.inquiry.ask_all(self._score, items)

    def _score(self, item: Encoded) -> NDArray[np.float32]:
        if item.num_scored == 0:
            return np.zeros(0, np.float32)
        values, _ = self._ask(item)
        return check_log_probs(values, item, source=self.inquiry.base_url, spell=self.spell)

    def _ask(self, item: Encoded) -> tuple[NDArray[np.float32], Sequence[Any]]:
        """Log-probabilities of the scored tokens, and the server's names of them where it has any."""
        path, body = self._request(item)
        return self.inquiry.ask(path, body, lambda answer: self._read(answer, item))

    def _read(self, answer: Any, item: Encoded) -> tuple[NDArray[np.float32], Sequence[Any]]:
        try:
            values, names = _READERS[self.interface](answer, item)
            return np.array([_number(value) for value in values], np.float32), names
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, EOFError) as error:
            raise UnreadableAnswerError(
                f"the answer holds no log-probabilities of the prompt ({type(error).__name__}: {error})"
            ) from error

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
            address = self.inquiry.base_url.removesuffix("/v1") + "/inference/v1/generate"
            return address, {"model": self.model, "token_ids": tokens, "sampling_params": sampling}
        body: dict[str, Any] = {"model": self.model, "prompt": tokens, "max_tokens": 1, "temperature": 1.0}
        body |= {"echo": True, "logprobs": 1} if self.interface == "echo" else {"prompt_logprobs": 1}
        return "completions", body

    def _compare_tokens(self, item: Encoded) -> None:
        """Refuse a server whose tokens are other ones, by its names of a sequence's scored tokens.

        Servers spell tokens in several ways (a space may be a space or a sign for one), and write whatever
        they like for bytes that are no whole character; so letters and digits are compared, and a half of
        them must agree.

        Raises:
            UserError: They are not ours.
        """
        assert self.spell is not None
        self._is_compared = True
        _, names = self._ask(item)
        ours = [self.spell(token) for token in item.scored_ids]
        pairs = [
            (letters(here), letters(there))
            for here, there in zip(ours, names, strict=False)
            if isinstance(there, str) and letters(here)
        ]
        # A server that has the same name for all tokens has no names.
        if len({there for _, there in pairs}) < 2:
            return
        different = [(here, there) for here, there in pairs if here != there]
        if 2 * len(different) > len(pairs):
            here, there = different[0]
            raise UserError(
                f"the server's tokens differ from those of the tokenizer here: {there!r} there is "
                f"{here!r} here",
                where=self.inquiry.base_url,
                hint="check that the server's model has the tokenizer of --prm",
            )


def letters(text: str) -> str:
    """What all spellings of a token have in common: its letters and digits of ASCII."""
    return "".join(character for character in text if character.isalnum() and character.isascii())


def _number(value: Any) -> float:
    """A value of an answer; a missing one is not a number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{str(value)[:40]!r} is not a number")
    return float(value)


def _read_echo(answer: Any, item: Encoded) -> tuple[Sequence[Any], Sequence[Any]]:
    """One value for each token of prompt and completion, none for the first."""
    log_probs = answer["choices"][0]["logprobs"]
    values, names = log_probs["token_logprobs"], log_probs.get("tokens")
    if len(values) not in (len(item.token_ids), len(item.token_ids) + 1):
        raise ValueError(f"{len(values)} values for {len(item.token_ids)} tokens")
    own = [values[place] for place in item.scored_places]
    return own, [names[place] for place in item.scored_places] if isinstance(names, list) else ()


def _read_prompt_logprobs(answer: Any, item: Encoded) -> tuple[Sequence[Any], Sequence[Any]]:
    """For each token of the prompt candidates by id, itself among them."""
    rows = answer["choices"][0]["prompt_logprobs"]
    if len(rows) != len(item.token_ids):
        raise ValueError(f"{len(rows)} values for {len(item.token_ids)} tokens")
    own = [rows[place][str(item.token_ids[place])] for place in item.scored_places]
    return [candidate["logprob"] for candidate in own], [candidate.get("decoded_token") for candidate in own]


def _read_token_ids(answer: Any, item: Encoded) -> tuple[Sequence[Any], Sequence[Any]]:
    """A matrix with a row for each scored token, as a base64-encoded ``.npy``."""
    content = io.BytesIO(base64.b64decode(answer["prompt_token_id_logprobs"]))
    matrix = np.load(content, allow_pickle=False)
    return [float(matrix[place - item.scored_start][0]) for place in item.scored_places], ()


_READERS = {"echo": _read_echo, "prompt-logprobs": _read_prompt_logprobs, "token-ids": _read_token_ids}

"""Outputs of a classifier that vLLM holds (``vllm serve --runner pooling``), read as if it were here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stepcredit.encoding import read_positions
from stepcredit.errors import UserError
from stepcredit.logprobs.checking import TokenError
from stepcredit.logprobs.remote import letters
from stepcredit.servers import Inquiry, ServerLimits, UnreadableAnswerError
from stepcredit.types import Encoded

FromLogits = Callable[[Float[Tensor, "N classes"]], Float[Tensor, " N"]]
"""Scores of a head's outputs."""

_LIMITS = ServerLimits(retries=6)


class PooledReader:
    """Reads step scores off a classifier on a server, as a step model's reader does.

    Prompts are sent as token ids, so the server's model must have this side's tokenizer: the first sequence
    is turned into text by both and compared. Outputs are asked for as they are, without an activation.

    Args:
        address: ``http://HOST:PORT#MODEL``.
        of_sequence: Whether the model has its outputs at the end of a sequence (``/classify``) rather than at
            each token (``/pooling``).
        spell: Token ids as text, by the tokenizer that made them.

    Raises:
        UserError: The address is none, or names no model.
    """

    def __init__(
        self,
        address: str,
        from_logits: FromLogits,
        *,
        num_classes: int,
        of_sequence: bool,
        spell: Callable[[Sequence[int]], str],
        limits: ServerLimits = _LIMITS,
    ) -> None:
        base_url, _, self.model = address.partition("#")
        if not self.model:
            raise UserError("does not name the model", where=address, hint="write URL#MODEL")
        hint = "start it with: vllm serve MODEL --runner pooling"
        self.inquiry = Inquiry(base_url.removesuffix("/").removesuffix("/v1"), limits, hint=hint)
        self.from_logits, self.num_classes, self.of_sequence = from_logits, num_classes, of_sequence
        self._spell = spell
        self._is_compared = False

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float64]]:
        """Scores of each sequence's steps, in input order.

        Raises:
            UserError: The server cannot be reached or refuses, its answers cannot be read, or its tokens are
                not ours.
            TokenError: Its outputs are not one for each token, or not finite.
        """
        if encoded and not self._is_compared:
            self._compare_tokens(encoded[0])
        return self.inquiry.ask_all(self._score, encoded)

    def _score(self, item: Encoded) -> NDArray[np.float64]:
        body = {"model": self.model, "input": list(item.token_ids), "use_activation": False}
        if self.of_sequence:
            rows = self.inquiry.ask(f"{self.inquiry.base_url}/classify", body, _read_classes)
            places: Sequence[int] = [0]
        else:
            body |= {"task": "token_classify", "encoding_format": "float"}
            rows = self.inquiry.ask(f"{self.inquiry.base_url}/pooling", body, _read_tokens)
            places = read_positions(item)
        outputs = self._checked(rows, item)
        return self.from_logits(torch.from_numpy(outputs[list(places)])).double().numpy()

    def _checked(self, rows: NDArray[np.float32], item: Encoded) -> NDArray[np.float32]:
        """The outputs, if they can be this model's."""
        source, wanted = self.inquiry.base_url, 1 if self.of_sequence else len(item.token_ids)
        if rows.shape != (wanted, self.num_classes):
            raise TokenError(
                f"{source} gives {rows.shape[0]} x {rows.shape[1]} outputs for {wanted} x {self.num_classes} "
                f"({'sequences' if self.of_sequence else 'tokens'} x classes)",
                item,
                hint="check that its model is that of --prm, and that it was started with --runner pooling",
            )
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if broken.size:
            place = int(broken[0])
            at_token = "" if self.of_sequence else f" at token {place + 1:,} of {wanted:,}"
            raise TokenError(
                f"{source} gives an output of {rows[place][~np.isfinite(rows[place])][0]}{at_token}",
                item,
                hint="check its weights, or start it with --dtype float32",
            )
        if self.num_classes > 1 and bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3)):
            raise TokenError(
                f"{source} gives probabilities, though outputs were asked for",
                item,
                hint="use a vLLM whose pooling interface supports use_activation",
            )
        return rows

    def _compare_tokens(self, item: Encoded) -> None:
        """Refuse a server whose tokens are other ones, by what it makes of a sequence.

        Raises:
            UserError: They are not ours.
        """
        self._is_compared = True
        body = {"model": self.model, "tokens": list(item.token_ids)}
        there = self.inquiry.ask(f"{self.inquiry.base_url}/detokenize", body, _read_text)
        here = self._spell(item.token_ids)
        if letters(here) != letters(there):
            raise UserError(
                f"the server's tokens differ from those of the tokenizer here: {_start(there)!r} there is "
                f"{_start(here)!r} here",
                where=self.inquiry.base_url,
                hint="check that the server's model has the tokenizer of --prm",
            )


def _start(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."


def _read_tokens(answer: Any) -> NDArray[np.float32]:
    return _matrix(lambda: answer["data"][0]["data"])


def _read_classes(answer: Any) -> NDArray[np.float32]:
    return _matrix(lambda: [answer["data"][0]["probs"]])


def _read_text(answer: Any) -> str:
    if not isinstance(answer, dict) or not isinstance(answer.get("prompt"), str):
        raise UnreadableAnswerError("the answer holds no text of the tokens")
    return str(answer["prompt"])


def _matrix(take: Callable[[], Any]) -> NDArray[np.float32]:
    try:
        rows = [[_number(value) for value in row] for row in take()]
        matrix = np.array(rows, np.float32)
        if matrix.ndim != 2:
            raise ValueError("rows of several lengths")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        problem = f"the answer holds no outputs ({type(error).__name__}: {error})"
        raise UnreadableAnswerError(problem) from error
    return matrix


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is not a number")
    return float(value)

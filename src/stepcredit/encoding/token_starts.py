"""Where tokens that were drawn start in their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_starts(tokenizer: PreTrainedTokenizerBase, text: str, token_ids: Sequence[int]) -> tuple[int, ...]:
    """The character at which each token starts: the first that the tokens before it do not complete.

    Tokens are decoded in a window that moves on wherever a character is complete, and that keeps the
    tokens before, since a token's text can depend on its neighbour (blanks in SentencePiece).

    Args:
        text: What they decode to, without control tokens.
        token_ids: Any tokens; they need not be those that the tokenizer would cut the text into.
    """

    def decoded(first: int, last: int) -> str:
        return str(tokenizer.decode(list(token_ids[first:last]), skip_special_tokens=True))

    starts = list[int]()
    context, done, position = 0, 0, 0
    for index in range(len(token_ids)):
        piece = decoded(context, index)[len(decoded(context, done)) :]
        complete = _shared_length(piece, text[position : position + len(piece)])
        starts.append(position + complete)
        if piece and complete == len(piece):
            context, done, position = done, index, position + complete
    return tuple(starts)


def _shared_length(left: str, right: str) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))

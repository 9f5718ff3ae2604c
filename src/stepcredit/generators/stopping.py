"""Where a response ends: stop strings that may begin and end inside tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int32

from stepcredit.generators.prompts import Opening, PromptFormat


def cut_at_stop(text: str, stop: Sequence[str]) -> str | None:
    """``text`` up to the earliest stop string, or ``None`` if there is none in it."""
    places = [place for place in (text.find(string) for string in stop) if place >= 0]
    return text[: min(places)] if places else None


class StopStrings:
    """Finds stop strings in what has been drawn.

    Args:
        vocabulary: Number of token ids that the model can draw.
    """

    def __init__(self, prompt_format: PromptFormat, vocabulary: int) -> None:
        self._format = prompt_format
        self._vocabulary = vocabulary
        self._pieces: list[str] | None = None
        self._completing = lru_cache(maxsize=16)(self._find_completing)

    def complete(self, drawn: Int32[np.ndarray, " tokens"], opening: Opening, stop: tuple[str, ...]) -> bool:
        """Whether the drawn tokens hold one of the stop strings, the last token being its end."""
        if not stop or not self._completing(stop)[drawn[-1]]:
            return False
        text = self._format.text_after(opening, tuple(drawn.tolist()))
        return cut_at_stop(text, stop) is not None

    def _find_completing(self, stop: tuple[str, ...]) -> Bool[np.ndarray, " vocab"]:
        """For each token id, whether its text holds the last character of a stop string.

        Only such tokens cost a look at the whole text. Tokens that are pieces of a character count,
        since they may complete any.
        """
        if self._pieces is None:
            tokenizer = self._format.tokenizer
            # Twice: some decoders take the first token's leading space away.
            self._pieces = [
                tokenizer.decode([token, token], clean_up_tokenization_spaces=False)
                for token in range(min(self._vocabulary, len(tokenizer)))
            ]
        last = {string[-1] for string in stop}
        hits = np.zeros(self._vocabulary, dtype=np.bool_)
        for token, piece in enumerate(self._pieces):
            hits[token] = "\ufffd" in piece or not last.isdisjoint(piece)
        return hits

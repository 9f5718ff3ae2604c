"""A response as the model wrote it, where that differs from the text of its row: the opening of its thinking.

Some templates open the block themselves, and servers and parsers write the tag into the response again, or
take it out. What the prompt has already is not counted twice, and a tag that was lost is put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepcredit.steps import steps_at
from stepcredit.thinking import lost_opening, repeated_opening
from stepcredit.types import Step


@dataclass(frozen=True, slots=True)
class Written:
    """What is tokenised after a prompt, and where that is in the response.

    Attributes:
        repeated: Characters at the response's start that the prompt ends with already.
        restored: Characters at the text's start that the response has lost.
    """

    text: str
    repeated: int = 0
    restored: int = 0

    @classmethod
    def after(cls, opened: str, response: str, *, continues: bool = False) -> Written:
        """What a response is after a prompt.

        Args:
            opened: What the prompt ends with that opens the model's thinking.
            continues: Whether the prompt has the start of the turn, so that the response has lost none.
        """
        if opened or continues:
            repeated = repeated_opening(response, opened)
            return cls(response[repeated:], repeated=repeated)
        lost = lost_opening(response)
        return cls(lost + response, restored=len(lost))

    def place(self, character: int) -> int:
        """A place in the text as one in the response."""
        return max(character - self.restored, 0) + self.repeated

    def inside(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        """Steps of the response as steps of the text."""
        if not self.repeated and not self.restored:
            return tuple(steps)
        return steps_at(self.text, [max(step.end - self.repeated, 0) + self.restored for step in steps])

    def outside(self, steps: Sequence[Step], response: str) -> tuple[Step, ...]:
        """Steps of the text as steps of the response, which they tile."""
        if not self.repeated and not self.restored:
            return tuple(steps)
        return steps_at(response, [self.place(step.end) for step in steps])

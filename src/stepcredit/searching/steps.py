"""Where a step ends while it is being drawn."""

from __future__ import annotations

from stepcredit.errors import UserError
from stepcredit.steps import StepRule

_ENDS = {  # At most four each, which is what OpenAI-compatible servers take.
    "newline": ("\n",),
    "blank-line": ("\n\n",),
    "sentence": (". ", "! ", "? ", "\n"),
}


def step_ends(rule: StepRule) -> tuple[str, ...]:
    """The texts that end a step, for rules that have such.

    Raises:
        UserError: The rule sees the end of a step only when the next one has begun.
    """
    if rule.kind == "separator":
        assert rule.parameter is not None
        return (rule.parameter,)
    if rule.kind not in _ENDS:
        raise UserError(
            f"the step rule {str(rule)!r} does not say which text ends a step, so steps cannot be "
            "drawn one at a time",
            where="--steps",
            hint="use newline, blank-line, sentence or separator:TEXT",
        )
    return _ENDS[rule.kind]

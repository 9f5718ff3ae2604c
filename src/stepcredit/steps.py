"""Responses into steps: text -> steps -> character spans -> token spans.

A step runs from its first character to the first character of the next one, so a separator belongs to
the step that it ends, and the steps of a response tile it exactly. All positions are character offsets
in the response.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

from stepcredit.code_blocks import block_starts
from stepcredit.errors import DataError, UserError
from stepcredit.thinking import paragraph_starts
from stepcredit.types import Rollout, Step
from stepcredit.wording import suggestion

_LINE_END = r"(?:\r\n|\n|\r(?!\n))"
# Blanks are read once, from the first of them: a run of n would else take n squared.
_BLANKS = r"[^\S\r\n]*+"
_NEWLINES = rf"(?<![^\S\r\n])(?:{_BLANKS}{_LINE_END})+"
_BLANK_LINES = rf"(?<![^\S\r\n]){_BLANKS}{_LINE_END}(?:{_BLANKS}{_LINE_END})+"
_STEP_NUMBER = r"(?im)^(?=[ \t>#*_]*step[ \t]*\d+[ \t*_]*[:.)–—-])"
_NUMBERED_LIST = r"(?m)^(?=[ \t>*_]*\d+[.)][ \t*_])"
# A sentence's mark and what closes it (quotes, brackets); the blank before the next sentence belongs to
# that one, as in most vocabularies (" The" is one token), while line ends belong to this one. The number
# of a list item ends no sentence. Marks are read from the first of them, for the same reason.
_SENTENCE_END = (
    r"(?m)(?<!^\d)(?<!^\d\d)(?:(?:(?<![.!?…])|(?<=^\d[.!?…])|(?<=^\d\d[.!?…]))"
    r"[.!?…]++[\"'”’)\]]*+(?=\s|\Z)|[。！？]+[”’」』）]*)"
    rf"(?:{_NEWLINES})?|{_NEWLINES}"
)

_PATTERNS = {
    "newline": _NEWLINES,
    "blank-line": _BLANK_LINES,
    "step-number": _STEP_NUMBER,
    "numbered-list": _NUMBERED_LIST,
    "sentence": _SENTENCE_END,
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_RULES = (*_PATTERNS, "code", "thinking", "turn", "separator:TEXT", "regex:PATTERN", "auto")
RULE_NAMES = f"{', '.join(_RULES[:-1])} or {_RULES[-1]}"
"""What a rule may be, for ``--help``."""

_STARTS: Mapping[str, Callable[[str], Iterable[int]]] = {
    "code": block_starts,
    "thinking": lambda response: paragraph_starts(response, re.compile(_BLANK_LINES)),
}
"""Rules that know where a step starts."""

_AUTO_ORDER = ("step-number", "blank-line", "numbered-list", "newline", "sentence")


@dataclass(frozen=True, slots=True)
class StepRule:
    """Where the steps of a response end.

    Attributes:
        kind: One of ``newline``, ``blank-line``, ``step-number`` (``Step 1:``), ``numbered-list``
            (``1.``), ``sentence``, ``code`` (blocks of statements in fenced code, paragraphs around it),
            ``thinking`` (blank lines, but for those inside code, tables and formulas, and the end of the
            thinking), ``turn`` (a whole turn), ``separator``, ``regex`` and ``auto`` (chosen for each
            response).
        parameter: The separator's text, or the regular expression: what it matches belongs to the step
            before, and where it matches nothing (a look-ahead) a step starts. Of ``thinking``: most tokens
            of a step that is made of several.
    """

    kind: str
    parameter: str | None = None

    @classmethod
    def parse(cls, text: str) -> StepRule:
        r"""Read a rule as the command line writes it, e.g. ``newline`` or ``separator:\n\n``.

        Raises:
            UserError: There is no such rule, or the expression is not valid.
        """
        kind, colon, parameter = text.partition(":")
        if kind not in {rule.partition(":")[0] for rule in _RULES}:
            raise UserError(f"no step rule {text!r}", where="--steps", hint=suggestion(kind, _RULES))
        if kind == "thinking" and colon:
            if not parameter.isdecimal() or int(parameter) < 1:
                raise UserError(
                    f"{parameter!r} is not a number of tokens", where="--steps", hint="write thinking:512"
                )
            return cls(kind, str(int(parameter)))
        if kind not in ("separator", "regex"):
            if colon:
                raise UserError(f"the step rule {kind!r} takes no parameter", where="--steps")
            return cls(kind)
        if not parameter:
            raise UserError(f"{kind!r} needs its text", where="--steps", hint=f"write {kind}:TEXT")
        if kind == "separator":
            parameter = unescape(parameter)
        rule = cls(kind, parameter)
        try:
            rule.pattern()
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(
                f"{parameter!r} is not a regular expression ({error})", where="--steps"
            ) from error
        return rule

    @classmethod
    def text(cls, steps: str | None, max_step_tokens: int | None) -> str | None:
        """A rule's text with the most tokens of its steps, as two options give them.

        Raises:
            UserError: The rule groups no steps.
        """
        if max_step_tokens is None:
            return steps
        if steps is None or cls.parse(steps).kind != "thinking":
            raise UserError(
                "only the rule thinking merges steps", where="--max-step-tokens", hint="pass --steps thinking"
            )
        return str(cls.parse(f"thinking:{max_step_tokens}"))

    def __str__(self) -> str:
        """As :meth:`parse` reads it."""
        if self.parameter is None:
            return self.kind
        parameter = self.parameter
        if self.kind == "separator":
            for letter in "\\nrt":
                parameter = parameter.replace(_ESCAPES[letter], f"\\{letter}")
        return f"{self.kind}:{parameter}"

    @property
    def max_tokens(self) -> int | None:
        """Most tokens up to which neighbouring steps are merged; ``None`` leaves them as they are."""
        return int(self.parameter) if self.kind == "thinking" and self.parameter else None

    def pattern(self) -> re.Pattern[str]:
        """What separates steps; not for ``auto``, ``code``, ``thinking`` and ``turn``."""
        return _compile(self.kind, self.parameter)


def unescape(text: str) -> str:
    r"""A separator that the command line writes with ``\n``, ``\r``, ``\t`` and ``\\``."""
    return re.sub(r"\\([nrt\\])", lambda match: _ESCAPES[match[1]], text)


@cache
def _compile(kind: str, parameter: str | None) -> re.Pattern[str]:
    if kind == "separator":
        assert parameter is not None
        return re.compile(re.escape(parameter))
    if kind == "regex":
        assert parameter is not None
        return re.compile(parameter)
    return re.compile(_PATTERNS[kind])


def split(response: str, rule: StepRule) -> tuple[Step, ...]:
    """Cut ``response`` into steps that tile it.

    A piece with nothing but blanks and separators is no step of its own: it belongs to the step before,
    or to the first one. A response without any text is one step, so that its end-of-turn has a place.
    """
    if rule.kind == "auto":
        rule = choose_rule([response])
    if rule.kind == "turn":
        return steps_at(response, [len(response)])
    pieces = _pieces(response, rule)
    ends: list[int] = []
    for has_content, end in pieces:
        if has_content:
            ends.append(end)
        elif ends:
            ends[-1] = end
    return steps_at(response, ends or [len(response)])


def _pieces(response: str, rule: StepRule) -> Iterator[tuple[bool, int]]:
    """Whether each piece has content before its separator, and where it ends, separator included."""
    if rule.kind in _STARTS:
        for start, end in pairwise([0, *_STARTS[rule.kind](response), len(response)]):
            yield bool(response[start:end].strip()), end
        return
    start = 0
    for match in rule.pattern().finditer(response):
        if match.end() > start:
            yield bool(response[start : match.start()].strip()), match.end()
            start = match.end()
    if start < len(response):
        yield bool(response[start:].strip()), len(response)


def grouped(
    steps: Sequence[Step], ends: Sequence[int], max_tokens: int | None
) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Neighbouring steps merged as long as they have no more tokens than ``max_tokens``.

    Args:
        steps: They tile a text.
        ends: One past each step's last token.
        max_tokens: ``None`` leaves them as they are.

    Returns:
        The steps, and one past each one's last token. A step that is longer by itself stays as it is.
    """
    if max_tokens is None:
        return tuple(steps), tuple(ends)
    kept: list[int] = []
    start = 0
    for number, end in enumerate(ends):
        if kept and end - start <= max_tokens:
            kept[-1] = number
        else:
            start = ends[kept[-1]] if kept else 0
            kept.append(number)
    text = "".join(step.text for step in steps)
    return steps_at(text, [steps[number].end for number in kept]), tuple(ends[number] for number in kept)


def steps_at(response: str, ends: Sequence[int]) -> tuple[Step, ...]:
    """The steps that end at the given character offsets.

    Raises:
        DataError: ``ends`` decreases, or does not end at the end of ``response``.
    """
    if not ends or ends[-1] != len(response) or any(a > b for a, b in pairwise([0, *ends])):
        raise DataError(
            f"step ends {list(ends)} do not rise to the response's length, {len(response)} characters"
        )
    return tuple(
        Step(index, response[start:end], start, end)
        for index, (start, end) in enumerate(pairwise([0, *ends]))
    )


def join(texts: Sequence[str], separator: str) -> tuple[Step, ...]:
    """An explicit list of steps, joined by ``separator``, which belongs to the step that it ends."""
    pieces = [text + separator for text in texts[:-1]] + list(texts[-1:] or [""])
    return steps_at("".join(pieces), list(accumulate(map(len, pieces))))


def steps_of(rollout: Rollout, rule: StepRule) -> tuple[Step, ...]:
    """The steps that the row itself lists (its extra field ``steps``), else those of ``rule``.

    Raises:
        DataError: A listed step is not in the response where it should be.
    """
    listed = listed_steps(rollout)
    return split(rollout.response, rule) if listed is None else locate(rollout, listed)


def step_contents(rollout: Rollout, rule: StepRule) -> list[str]:
    """What :func:`steps_of` gives, without surrounding blanks and separators; listed steps as they are."""
    listed = listed_steps(rollout)
    if listed is not None:
        return listed
    if rule.kind == "auto":
        rule = choose_rule([rollout.response])
    return [_content(step.text, rule) for step in split(rollout.response, rule)]


def step_texts(rollout: Rollout, rule: StepRule) -> list[str]:
    """The :func:`step_contents` that are not empty."""
    return [text for text in step_contents(rollout, rule) if text]


def _content(text: str, rule: StepRule) -> str:
    text = text.strip()
    if rule.kind not in ("separator", "regex"):
        return text
    while True:
        endings = [m.start() for m in rule.pattern().finditer(text) if m.start() < m.end() == len(text)]
        if not endings:
            return text
        text = text[: endings[0]].rstrip()


def listed_steps(rollout: Rollout) -> list[str] | None:
    """The row's own list of steps, as ProcessBench rows have, or ``None``.

    Raises:
        DataError: The response has several turns, which have no text in common that steps could be of.
    """
    if rollout.turns is not None:
        raise DataError(
            "the response is a list of turns, where this takes one text",
            where=rollout.id,
            hint="score it with an implicit reward model, a value head or a token head",
        )
    listed = rollout.extras.get("steps")
    is_list = isinstance(listed, (list, tuple)) and all(isinstance(text, str) for text in listed)
    return list(listed) if listed and is_list else None


def locate(rollout: Rollout, texts: Sequence[str]) -> tuple[Step, ...]:
    """Steps that start where each text is found in the response, one after another.

    Raises:
        DataError: A text is not there.
    """
    starts, position = [], 0
    for number, text in enumerate(texts):
        start = rollout.response.find(text, position)
        if start < 0:
            raise DataError(
                f"step {number + 1} of the field 'steps' is not in the response after the step before it",
                where=rollout.id,
                hint="remove the field to split by a rule, or correct the row",
            )
        starts.append(start)
        position = start + len(text)
    return steps_at(rollout.response, [*starts[1:], len(rollout.response)])


def choose_rule(responses: Iterable[str]) -> StepRule:
    """The first of step-number, blank-line, numbered-list, newline and sentence that fits the data.

    A rule fits if it splits at least half of the responses into two steps or more; where none does,
    the one that splits most is chosen (newline if it is among them).
    """
    responses = list(responses)
    counts = {
        kind: sum(len(split(response, StepRule(kind))) > 1 for response in responses) for kind in _AUTO_ORDER
    }
    fitting = [kind for kind, count in counts.items() if 2 * count >= max(len(responses), 1)]
    best = max(counts, key=lambda kind: (counts[kind], kind == "newline"))
    return StepRule(fitting[0] if fitting else best)


def step_token_ends(token_starts: Sequence[int], steps: Sequence[Step]) -> tuple[int, ...]:
    """One past each step's last token; a token belongs to the step in which its first character lies.

    Args:
        token_starts: Character offset of each token's first character, non-decreasing. Tokens at or
            after the end of the response (end-of-turn) belong to the last step.
        steps: The steps, at least one.

    Returns:
        For each step, how many tokens start before its end; the last is the number of tokens.
    """
    ends = [bisect_left(token_starts, step.end) for step in steps]
    ends[-1] = len(token_starts)
    return tuple(ends)

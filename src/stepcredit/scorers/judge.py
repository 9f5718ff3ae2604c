"""A judge's prompt and how its verdicts are read: one for each step, or the answer is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit.recipes import judge_names, judge_path, read_settings
from stepcredit.thinking import after_thinking
from stepcredit.typed_values import typed_record
from stepcredit.types import Message

_PLACEHOLDER = re.compile(r"\{(problem|steps|count|number|text)\}")
DEFAULT_JUDGE = "steps"
"""The judge that ships with the package."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of a step.

    Attributes:
        start: Character of the answer at which the verdict's word starts.
    """

    start: int
    is_right: bool


@dataclass(frozen=True, kw_only=True)
class Judge:
    r"""What a judge is asked and how its answer is read; a YAML file holds these fields.

    Attributes:
        prompt: The user's turn; ``{problem}``, ``{steps}`` and ``{count}`` (how many) are filled in.
        step: A step in it, with ``{number}`` (from 1) and ``{text}``; steps stand on lines of their own.
        verdict: Regular expression of a verdict. Its group ``verdict`` is the word; a group ``number``, if it
            has one, is the step's number.
        right: Words for a right step, in any case of letters.
        wrong: Words for a wrong one.
        system: A system turn; none where it is empty.
        read_thinking: Whether verdicts stand in the model's thinking; else what follows it is read.
        samples: Answers to each solution; a step's score is the mean over them.
        temperature: Of sampling. A refused answer is drawn again at no less than .5.
        max_new_tokens: Most tokens of an answer.
        retries: How often a refused answer is drawn again.
        seed: Of sampling; none where the server takes no seeds.
        candidates: How many tokens a server is asked to give log-probabilities of, for each token of an
            answer; 0 asks for none.
    """

    prompt: str
    step: str
    verdict: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    system: str = ""
    read_thinking: bool = False
    samples: int = 1
    temperature: float = 0.6
    max_new_tokens: int = 4096
    retries: int = 3
    seed: int | None = 0
    candidates: int = 20

    @classmethod
    def read(cls, name: str | Path) -> Judge:
        """Read a file, or one that ships with the package.

        Raises:
            UserError: It cannot be read or does not say what it must.
        """
        content = read_settings(Path(name), judge_path, judge_names())
        judge = typed_record(cls, content, str(name))
        judge._check(str(name))
        return judge

    def _check(self, where: str) -> None:
        for field, place in (("prompt", "{problem}"), ("prompt", "{steps}"), ("step", "{text}")):
            if place not in getattr(self, field):
                raise UserError(f"has no {place}", where=f"{where}: {field}", hint="put it in")
        try:
            groups = self._pattern().groupindex
        except re.error as error:
            raise UserError(f"is not a regular expression ({error})", where=f"{where}: verdict") from error
        if "verdict" not in groups:
            raise UserError(
                "has no group verdict", where=f"{where}: verdict", hint=r"write e.g. (?P<verdict>\w+)"
            )
        if not self.right or not self.wrong or set(map(_folded, self.right)) & set(map(_folded, self.wrong)):
            raise UserError("must be lists of different words", where=f"{where}: right and wrong")
        for field, least in (
            ("samples", 1),
            ("max_new_tokens", 1),
            ("retries", 0),
            ("temperature", 0),
            ("candidates", 0),
        ):
            if not getattr(self, field) >= least:
                raise UserError(f"must be at least {least}", where=f"{where}: {field}")

    def to_json(self) -> dict[str, Any]:
        """All fields, which decide what is drawn."""
        return asdict(self)

    def messages(self, problem: str, steps: Sequence[str]) -> tuple[Message, ...]:
        """The conversation that asks about a solution."""
        listed = "\n".join(
            _filled(self.step, {"number": str(number), "text": text}) for number, text in enumerate(steps, 1)
        )
        values = {"problem": problem, "steps": listed, "count": str(len(steps))}
        asked: Message = {"role": "user", "content": _filled(self.prompt, values)}
        return ({"role": "system", "content": self.system}, asked) if self.system else (asked,)

    def verdicts(self, answer: str, count: int) -> list[Verdict] | None:
        """The verdicts on ``count`` steps; ``None`` for an answer that does not have exactly one for each.

        Nothing is guessed: where verdicts are missing, too many, out of order or of other words, none of them
        is believed, since each could belong to a neighbour.
        """
        read: str | None = answer if self.read_thinking else after_thinking(answer)
        if read is None:
            return None
        offset = len(answer) - len(read)
        matches = list(self._pattern().finditer(read))
        if len(matches) != count:
            return None
        verdicts = []
        for number, match in enumerate(matches, 1):
            word = _folded(match["verdict"] or "")
            is_right = word in map(_folded, self.right)
            if not is_right and word not in map(_folded, self.wrong):
                return None
            if "number" in match.re.groupindex and match["number"] != str(number):
                return None
            verdicts.append(Verdict(offset + match.start("verdict"), is_right))
        return verdicts

    def probability(self, before: str, candidates: Mapping[str, float]) -> float | None:
        """The probability of a right word against a wrong one, in [0, 1], by the tokens that may begin it.

        Args:
            before: What the token that was drawn has before the word.
            candidates: Log-probability (nats) of each token that may stand there.

        Returns:
            ``None`` where no candidate begins words of one kind only.
        """
        mass = {True: 0.0, False: 0.0}
        for token, log_prob in candidates.items():
            start = _folded(token[len(before) :]) if token.startswith(before) else ""
            right, wrong = self._begins(start, self.right), self._begins(start, self.wrong)
            if start and right != wrong:
                mass[right] += math.exp(log_prob)
        total = mass[True] + mass[False]
        return mass[True] / total if total > 0 else None

    @staticmethod
    def _begins(start: str, words: Sequence[str]) -> bool:
        # A token may hold what closes the word too, such as a brace.
        return any(_folded(word).startswith(start) or start.startswith(_folded(word)) for word in words)

    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.verdict)


def _folded(word: str) -> str:
    return word.strip().casefold()


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Placeholders filled in, once: what is filled in may hold braces of its own."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template).rstrip("\n")

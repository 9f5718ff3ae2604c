"""Completions of every step prefix, each distinct prefix once (Math-Shepherd, arXiv:2312.08935)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stepcredit.conversations import tools_of
from stepcredit.data.prompt_ids import one_prompt_each
from stepcredit.labelling.monte_carlo import FIELD, Tally, is_settled, label_rollout, without_labels
from stepcredit.runs import Ledger
from stepcredit.steps import StepRule, steps_of
from stepcredit.types import GenerationRequest, Prompt, Rollout, Sampling


@dataclass(frozen=True, slots=True)
class StepPrefix:
    """A response up to the end of a step.

    Attributes:
        key: Names prompt, tools and text (64 bits as hexadecimal digits).
        is_response: It is the whole response and its policy ended it, so there is nothing to complete.
    """

    key: str
    text: str
    is_response: bool


@dataclass(slots=True)
class _Completions:
    """What is known of one prefix."""

    uses: int = 0
    right: int = 0
    drawn: int = 0  # bit i: completion i is there
    prompt_tokens: int = 0
    generated_tokens: int = 0
    failed: bool = False

    @property
    def tally(self) -> Tally:
        return Tally(self.right, self.drawn.bit_count())

    def missing(self, target: int) -> tuple[int, ...]:
        return tuple(index for index in range(target) if not self.drawn >> index & 1)


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How prefixes are completed and labelled.

    Attributes:
        num_completions: Completions of a prefix, K; the most where ``tolerance`` is given.
        kind: The label that training sees: ``soft``, ``hard`` or ``log-mean-exp``.
        beta: Of log-mean-exp labels.
        tolerance: Stop drawing once a label is settled to within this; ``None`` always draws K.
    """

    num_completions: int
    kind: str
    beta: float
    tolerance: float | None = None

    @property
    def targets(self) -> tuple[int, ...]:
        """Completions that a prefix has after each round: four rounds if drawing may stop early."""
        if self.tolerance is None:
            return (self.num_completions,)
        step = self.num_completions / 4
        return tuple(sorted({math.ceil(step * number) for number in range(1, 5)}))


def step_prefixes(rollout: Rollout, rule: StepRule) -> tuple[StepPrefix, ...]:
    """The prefixes that end with each step."""
    ends = [step.end for step in steps_of(rollout, rule)]
    finished = rollout.finish_reason != "length"
    tools = tools_of(rollout.extras, rollout.id)
    asked = rollout.prompt_id if tools is None else json.dumps([rollout.prompt_id, tools], sort_keys=True)
    return tuple(
        StepPrefix(
            key=_key(asked, rollout.response[:end]),
            text=rollout.response[:end],
            is_response=finished and number == len(ends),
        )
        for number, end in enumerate(ends, 1)
    )


def _key(asked: str, text: str) -> str:
    content = f"{len(asked)}:{asked}{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def can_be_labelled(rollout: Rollout) -> bool:
    """Whether there is an answer to grade completions by, and the response is one text and graded.

    Rows with several turns hold no step labels: nothing says in which text they would end.
    """
    return rollout.turns is None and rollout.answer is not None and rollout.correct is not None


class PrefixCompletions:
    """Which prefixes there are, what is drawn of them, and what follows from it.

    Attributes:
        num_prefixes: Step prefixes to complete, counted for each rollout.
    """

    def __init__(self, rule: StepRule, settings: LabelSettings) -> None:
        self.rule, self.settings = rule, settings
        self.num_rollouts = 0
        self.num_labelled = 0
        self.num_prefixes = 0
        self._known: dict[str, _Completions] = {}

    @property
    def num_distinct(self) -> int:
        """Different prefixes to complete."""
        return len(self._known)

    @property
    def num_drawn(self) -> int:
        """Completions so far."""
        return sum(known.tally.total for known in self._known.values())

    @property
    def num_failed(self) -> int:
        """Prefixes that could not be completed."""
        return sum(known.failed for known in self._known.values())

    def see(self, rollouts: Iterable[Rollout]) -> None:
        """Count the prefixes of all rollouts; comes first.

        Raises:
            DataError: Two with one prompt id have different prompts, so that they share no completions.
        """
        for rollout in one_prompt_each(rollouts, exactly=True):
            self.num_rollouts += 1
            if not can_be_labelled(rollout):
                continue
            self.num_labelled += 1
            for prefix in step_prefixes(rollout, self.rule):
                if not prefix.is_response:
                    self._known.setdefault(prefix.key, _Completions()).uses += 1
                    self.num_prefixes += 1

    def add(self, prefix: str, index: int, right: bool, prompt_tokens: int, generated_tokens: int) -> None:
        """Take note of a graded completion of the prefix with this key, if it is one of these."""
        known = self._known.get(prefix)
        # A run that an earlier version began may hold completions that were drawn without the row's tools.
        if known is None or known.drawn >> index & 1:
            return
        known.drawn |= 1 << index
        known.right += right
        known.prompt_tokens = max(known.prompt_tokens, prompt_tokens)
        known.generated_tokens += generated_tokens

    def fail(self, key: str) -> None:
        """Take note that a prefix cannot be completed; it is not asked for again."""
        self._known[key].failed = True

    def requests(
        self, rollouts: Iterable[Rollout], target: int, sampling: Sampling, row_fields: Sequence[str] = ()
    ) -> Iterator[GenerationRequest]:
        """Ask for what is missing to ``target`` completions, each distinct prefix once.

        A request's prompt is called by the prefix's key, so that results and failures name it; the id
        is also part of each completion's random stream. Its extras hold the row's tools and ``row_fields``,
        and nothing that is said of the row's response.
        """
        asked: set[str] = set()
        for rollout in rollouts:
            if not can_be_labelled(rollout):
                continue
            for prefix in step_prefixes(rollout, self.rule):
                if prefix.is_response or prefix.key in asked:
                    continue
                asked.add(prefix.key)
                if indices := self._wanted(prefix.key, target):
                    row = rollout.extras
                    extras = {name: row[name] for name in ("tools", *row_fields) if row.get(name)}
                    prompt = Prompt(
                        id=prefix.key, prompt=rollout.prompt, answer=rollout.answer, extras=extras
                    )
                    yield GenerationRequest(
                        prompt=prompt, indices=indices, sampling=sampling, response_prefix=prefix.text
                    )

    def _wanted(self, key: str, target: int) -> tuple[int, ...]:
        known, tolerance = self._known[key], self.settings.tolerance
        if known.failed:
            return ()
        if tolerance is not None and is_settled(known.tally, self.settings.kind, tolerance):
            return ()
        return known.missing(target)

    def label(self, rollout: Rollout) -> Rollout:
        """The rollout with its labels, none where it cannot have any.

        A finished response's last step has the response's own outcome.
        """
        if not can_be_labelled(rollout):
            return without_labels(rollout, FIELD)
        tallies = [
            (
                len(prefix.text),
                Tally(int(bool(rollout.correct)), 1) if prefix.is_response else self._known[prefix.key].tally,
            )
            for prefix in step_prefixes(rollout, self.rule)
        ]
        return label_rollout(rollout, tallies, kind=self.settings.kind, beta=self.settings.beta)

    def ledger(self, *, shared: bool, model_parameters: int = 0) -> Ledger:
        """What the completions cost.

        A prefix is read once for all its completions of one round.

        Args:
            shared: As computed, each distinct prefix completed once. Otherwise what it would have cost
                to complete every prefix of every rollout anew.
        """
        ledger = Ledger(model_parameters=model_parameters)
        for known in self._known.values():
            times = 1 if shared else known.uses
            rounds = sum(1 for before in (0, *self.settings.targets[:-1]) if known.tally.total > before)
            ledger.prompt_tokens += times * rounds * known.prompt_tokens
            ledger.generated_tokens += times * known.generated_tokens
        return ledger

"""What is to be sampled: the prompts of a file (or a share of it) in context, and which samples are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from stepcredit.conversations import content_text
from stepcredit.data import Records, prompt_from_json, read_as, read_prompts, read_rollouts
from stepcredit.data.reasoning_gym import PREFIX, TaskOptions, read_task
from stepcredit.errors import DataError, UserError
from stepcredit.types import Message, Prompt, PromptText
from stepcredit.wording import quantity


def parse_shard(shard: str | None) -> tuple[int, int]:
    """``I/N`` as (I, N); no shard is the first of one.

    Raises:
        UserError: It is not of that form, or I is not between 1 and N.
    """
    if shard is None:
        return 1, 1
    number, slash, count = shard.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise UserError(f"{shard!r} is not I/N with I between 1 and N", where="--shard", hint="e.g. --shard 2/8")


def read_examples(few_shot: Path | None, system_prompt: str | None = None) -> tuple[Message, ...]:
    """Solved examples as turns of one conversation.

    A system message that they were drawn after stands once, before all of them, unless ``system_prompt``
    is to take its place.

    Raises:
        DataError: They have different system messages, and there is none that replaces them.
    """
    if few_shot is None:
        return ()
    opening: list[Message] = []
    turns: list[Message] = []
    for rollout in read_rollouts(few_shot):
        system, asked = _apart(rollout.prompt)
        if system_prompt is None and opening and system and system != opening:
            raise DataError(
                "the examples have different system messages",
                where=f"{few_shot}: rollout {rollout.id!r}",
                hint="choose one with --system-prompt",
            )
        opening = opening or system
        if rollout.turns is not None:
            turns += [*asked, *rollout.turns]
            continue
        started = asked.pop() if asked and asked[-1]["role"] == "assistant" else None
        response = rollout.response if started is None else content_text(started) + rollout.response
        turns += [*asked, {"role": "assistant", "content": response}]
    return (*(opening if system_prompt is None else ()), *turns)


def _apart(prompt: PromptText) -> tuple[list[Message], list[Message]]:
    """The system message at the start of a conversation, if there is one, and the other turns."""
    turns: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    first = int(bool(turns) and turns[0]["role"] == "system")
    return turns[:first], turns[first:]


def in_context(
    prompt: Prompt,
    system_prompt: str | None = None,
    examples: tuple[Message, ...] = (),
    path: Path | None = None,
) -> Prompt:
    """The prompt as the policy sees it: after a system message and solved examples.

    Rollouts keep this whole conversation as their prompt, so that they are scored behind the same text.

    Args:
        system_prompt: Goes before the examples' own system message.
        examples: From :func:`read_examples`.

    Raises:
        DataError: The prompt has a system message of its own.
    """
    if system_prompt is None and not examples:
        return prompt
    own, conversation = _apart(prompt.prompt)
    theirs, solved = _apart(examples)
    if own and system_prompt is not None:
        raise DataError(
            "the prompt already has a system message",
            where=f"{path}: prompt {prompt.id!r}" if path else f"prompt {prompt.id!r}",
            hint="leave out --system-prompt",
        )
    if system_prompt is not None:
        theirs = [{"role": "system", "content": system_prompt}]
    return replace(prompt, prompt=[*(own or theirs), *solved, *conversation])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which prompts are to be answered.

    Attributes:
        positions: Prompt id to its place in the output.
        prompts: Streams the prompts, as the policy sees them.
    """

    positions: Mapping[str, int]
    num_skipped: int
    prompts: Callable[[], Iterator[Prompt]]

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        columns: Mapping[str, str] | None = None,
        subset: str | None = None,
        limit: int | None = None,
        shard: str | None = None,
        system_prompt: str | None = None,
        examples: tuple[Message, ...] = (),
        skip_invalid: bool = False,
        task: TaskOptions | None = None,
    ) -> Plan:
        """Check all that is read of the file before anything is drawn.

        Args:
            path: File of prompts, ``hub:NAME[:SPLIT]`` or ``reasoning-gym:TASK``.
            columns: Field of a prompt to the column that holds it.
            limit: Read only so many prompts, the first ones; without it all.
            shard: ``I/N`` takes the I-th of N runs of consecutive prompts (of those within the limit).
            system_prompt: See :func:`in_context`.
            examples: See :func:`in_context`.

        Raises:
            DataError: A prompt is malformed, there twice, or cannot be put after the examples.
            UserError: There is no prompt, or none in the shard.
        """

        def read() -> Records[Prompt]:
            if str(path).startswith(PREFIX):
                rows = read_task(str(path), task or TaskOptions())
                return Records(path, rows, lambda row, where, _: (prompt_from_json(row, where),))
            if columns or subset or str(path).startswith("hub:"):
                return read_as(path, "prompts", columns=columns, subset=subset, skip_invalid=skip_invalid)
            return read_prompts(path, skip_invalid=skip_invalid)

        records = read()
        ids = [in_context(prompt, system_prompt, examples, path).id for prompt in islice(records, limit)]
        if not ids:
            raise UserError("has no prompts", where=path)
        number, count = parse_shard(shard)
        first, last = (len(ids) * (number - 1)) // count, (len(ids) * number) // count
        if first == last:
            raise UserError(
                f"{shard} holds none of the {quantity(len(ids), 'prompt')}",
                where="--shard",
                hint=f"use at most {quantity(len(ids), 'shard')}",
            )

        def prompts() -> Iterator[Prompt]:
            for prompt in islice(read(), first, last):
                yield in_context(prompt, system_prompt, examples, path)

        positions = {name: place for place, name in enumerate(ids[first:last])}
        return cls(positions=positions, num_skipped=records.num_skipped, prompts=prompts)


class Done:
    """Which (prompt, index) have been drawn."""

    def __init__(self, plan: Plan, num_samples: int) -> None:
        self._positions, self.num_samples = plan.positions, num_samples
        self._flags = bytearray(len(plan.positions) * num_samples)
        self.count = 0

    def place(self, prompt_id: str, index: int) -> int:
        """Where a sample stands in the output."""
        return self._positions[prompt_id] * self.num_samples + index

    def add(self, prompt_id: str, index: int) -> bool:
        """Take note of a sample; False if it was there already."""
        place = self.place(prompt_id, index)
        if self._flags[place]:
            return False
        self._flags[place] = 1
        self.count += 1
        return True

    def num_done(self, prompt_id: str) -> int:
        """How many samples of a prompt have been drawn."""
        first = self.place(prompt_id, 0)
        return self._flags.count(1, first, first + self.num_samples)

    def missing(self, prompt_id: str) -> tuple[int, ...]:
        """Samples of a prompt that are still to be drawn."""
        first = self.place(prompt_id, 0)
        flags = self._flags[first : first + self.num_samples]
        return tuple(index for index, flag in enumerate(flags) if not flag)

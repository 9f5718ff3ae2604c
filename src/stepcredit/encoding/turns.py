"""Responses of several turns: the assistant's tokens are scored, those of tools and users in between are not.

The template renders the whole conversation. Which of its text the assistant wrote is what the template
marks by ``{% generation %}``, else what a turn adds to the conversation before it. A template that does
neither, since it rewrites earlier turns, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any, Protocol

from stepcredit.chat_templates import chat_settings, generated_spans, prompt_text, render, with_reasoning
from stepcredit.conversations import as_messages, content_text, tools_of
from stepcredit.encoding.base import EncodedSteps, EncodingError, check_length, merging
from stepcredit.encoding.written import Written
from stepcredit.errors import DataError
from stepcredit.steps import StepRule, grouped, split, step_token_ends, steps_at
from stepcredit.thinking import opened_block
from stepcredit.types import Encoded, Message, Rollout, Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BETWEEN = "\n\n"
"""What stands between two turns in the scored text."""


class Tokenises(Protocol):
    """What is needed of an encoding."""

    tokenizer: PreTrainedTokenizerBase
    step_rule: StepRule
    max_tokens: int | None
    end_of_turn_id: int

    def offsets(
        self, text: str, *, as_text: bool = False
    ) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Token ids and character offsets."""

    def spells_control_token(self, text: str) -> bool:
        """Whether a text would be read as control tokens."""

    def warn_of_lost_calls(self, messages: Sequence[Message], text: str) -> None:
        """Say once that the template leaves out calls of tools."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant's turn in the rendered conversation.

    Attributes:
        closed: One past its end-of-turn; ``end`` where it has none.
    """

    start: int
    end: int
    closed: int


def encode_turns(encoding: Tokenises, rollout: Rollout) -> EncodedSteps:
    """Encode a rollout of several turns; ``scored_text`` has the assistant's, as the template writes them.

    Raises:
        EncodingError: It cannot be encoded exactly.
    """
    text, turns = _rendered(encoding, rollout)
    ids, starts = _tokenised(encoding, rollout, text, turns)
    check_length(ids, encoding.max_tokens, rollout.id)
    written = [_turn_of(start, turns) for start in starts]
    places = [place for place, turn in enumerate(written) if turn is not None]
    if not places or places[0] == 0:
        raise EncodingError("nothing-to-score", "the response has no tokens", where=rollout.id)
    # A last turn that was cut off before its first token leaves a tool's or a user's at the end.
    ids = ids[: places[-1] + 1]
    begins = list(accumulate((turn.end - turn.start + len(BETWEEN) for turn in turns), initial=0))
    own = accumulate(
        (
            begins[n] + min(starts[p], turns[n].end) - turns[n].start
            for p in places
            if (n := written[p]) is not None
        ),
        max,
    )
    own_starts = list(own)
    steps = _steps(text, turns, encoding.step_rule)
    scored_text = "".join(step.text for step in steps)
    steps, ends = _grouped_by_turn(steps, step_token_ends(own_starts, steps), begins, encoding.step_rule)
    encoded = Encoded(tuple(ids), places[0], ends, tuple(_gaps(places)))
    return EncodedSteps(
        encoded=encoded,
        steps=steps,
        token_ends=(*own_starts[1:], len(scored_text)),
        scored_text=scored_text,
    )


def _rendered(encoding: Tokenises, rollout: Rollout) -> tuple[str, list[Turn]]:
    """The conversation up to the end of the last assistant's turn, and the response's turns of its."""
    tokenizer = encoding.tokenizer
    prompt = as_messages(rollout.prompt)
    if prompt[-1]["role"] == "assistant":
        raise _refusal(
            "the prompt ends in an assistant's turn, which a list of turns cannot continue", rollout
        )
    turns = [with_reasoning(tokenizer, turn) for turn in rollout.turns or ()]
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    for turn in turns:
        if turn["role"] == "assistant" and encoding.spells_control_token(content_text(turn)):
            raise _refusal("an assistant's turn spells a control token", rollout)
    tools = tools_of(rollout.extras, rollout.id)
    messages = [*prompt, *turns]
    text = render(tokenizer, messages, add_generation_prompt=False, tools=tools)
    spans = _marked(tokenizer, prompt, messages, text, tools)
    if spans is None:
        spans = list(_added(tokenizer, len(prompt), messages, text, tools, rollout))
    found = [_closed(encoding, text, *span) for span in spans]
    own = [turn for turn in turns if turn["role"] == "assistant"]
    for number, (turn, span) in enumerate(zip(own, found, strict=True), 1):
        written = text[span.start : span.end]
        content = Written.after(opened_block(text[: span.start]), content_text(turn)).text.strip()
        if content not in written:
            raise _refusal(
                f"the chat template leaves out a part of the assistant's turn {number} (its thinking?)",
                rollout,
            )
        encoding.warn_of_lost_calls([turn], written)
    last = found[-1]
    if rollout.finish_reason == "length":
        last = found[-1] = Turn(last.start, last.end, last.end)
    return text[: last.closed], found


def _marked(
    tokenizer: Any, prompt: Sequence[Message], messages: Sequence[Message], text: str, tools: Any
) -> list[tuple[int, int]] | None:
    """What the template marks as the assistant's, a span per turn of the response; ``None`` without marks."""
    spans = generated_spans(tokenizer, messages, tools)
    after = sum(turn["role"] == "assistant" for turn in prompt)
    number = sum(turn["role"] == "assistant" for turn in messages)
    if len(spans) != number or any(not text[start:end].strip() for start, end in spans[after:]):
        return None
    return spans[after:]


def _added(
    tokenizer: Any, first: int, messages: Sequence[Message], text: str, tools: Any, rollout: Rollout
) -> Iterator[tuple[int, int]]:
    """What each assistant's turn adds to the conversation before it."""
    for number in range(first, len(messages)):
        if messages[number]["role"] != "assistant":
            continue
        try:
            before = prompt_text(tokenizer, messages[:number], tools)
            after = render(tokenizer, messages[: number + 1], add_generation_prompt=False, tools=tools)
        except DataError as error:
            raise _refusal(f"{error.problem}, so that it is not known who wrote what", rollout) from error
        if not text.startswith(before):
            # The template opens the thinking for a response, and not where it shows one that is finished.
            before = before.removesuffix(opened_block(before))
        if not text.startswith(before) or not text.startswith(after.rstrip()) or len(after) <= len(before):
            raise _refusal(
                "the chat template rewrites earlier turns and has no {% generation %}, so that it is not "
                "known who wrote what",
                rollout,
            )
        yield len(before), len(after)


def _closed(encoding: Tokenises, text: str, start: int, end: int) -> Turn:
    """A span with its end-of-turn, and nothing after that, which no policy writes."""
    mark = str(encoding.tokenizer.convert_ids_to_tokens(encoding.end_of_turn_id))
    place = text.rfind(mark, start, end)
    if place < 0 and text.startswith(mark, end):
        place = end
    if place < 0:
        bare = len(text[start:end].rstrip()) + start
        return Turn(start, bare, bare)
    return Turn(start, place, place + len(mark))


def _tokenised(
    encoding: Tokenises, rollout: Rollout, text: str, turns: Sequence[Turn]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of the conversation, and the character at which each starts."""
    if chat_settings(encoding.tokenizer).boundary == "apart":
        cuts = sorted({0, len(text), *(turn.start for turn in turns)})
        pieces = [(cut, encoding.offsets(text[cut:end])) for cut, end in pairwise(cuts)]
        ids = tuple(chain.from_iterable(ids for _, (ids, _) in pieces))
        return ids, tuple(cut + start for cut, (_, offsets) in pieces for start, _ in offsets)
    ids, offsets = encoding.offsets(text)
    for turn in turns:
        if any(start < turn.start < end for start, end in offsets):
            raise merging(text[turn.start : turn.end], rollout.id)
    return ids, tuple(start for start, _ in offsets)


def _turn_of(start: int, turns: Sequence[Turn]) -> int | None:
    return next((number for number, turn in enumerate(turns) if turn.start <= start < turn.closed), None)


def _steps(text: str, turns: Sequence[Turn], rule: StepRule) -> tuple[Step, ...]:
    """The steps of all turns, each cut by itself; what stands between turns belongs to the step before it."""
    ends: list[int] = []
    begin = 0
    for number, turn in enumerate(turns):
        written = text[turn.start : turn.end]
        ends += [begin + step.end for step in split(written, rule)]
        begin += len(written)
        if number < len(turns) - 1:
            begin += len(BETWEEN)
            ends[-1] = begin
    return steps_at(BETWEEN.join(text[turn.start : turn.end] for turn in turns), ends)


def _grouped_by_turn(
    steps: tuple[Step, ...], ends: tuple[int, ...], begins: Sequence[int], rule: StepRule
) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Steps merged within turns only."""
    if rule.max_tokens is None:
        return steps, ends
    kept: list[int] = []
    for begin, stop in pairwise(begins):
        members = [step for step in steps if begin <= step.start < stop]
        first = members[0].index
        taken = ends[first - 1] if first else 0
        own = [ends[step.index] - taken for step in members]
        sizes = steps_at(
            "".join(step.text for step in members), [step.end - members[0].start for step in members]
        )
        together, _ = grouped(sizes, own, rule.max_tokens)
        kept += [begin + step.end for step in together]
    text = "".join(step.text for step in steps)
    kept[-1] = len(text)
    at = {step.end: end for step, end in zip(steps, ends, strict=True)}
    return steps_at(text, kept), tuple(at[end] for end in kept)


def _gaps(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of indices between places that do not follow one another."""
    for place, following in pairwise(places):
        if following > place + 1:
            yield place + 1, following


def _refusal(problem: str, rollout: Rollout) -> EncodingError:
    return EncodingError(
        "not-encodable",
        problem,
        where=rollout.id,
        hint="make one row per assistant's turn, with everything before it as the prompt",
    )

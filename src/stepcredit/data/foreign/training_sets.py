"""Training sets of other tools: UltraInteract, UltraFeedback, TRL's three shapes, OpenRLHF's CE rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from stepcredit.conversations import content_text
from stepcredit.data.fields import (
    name_field,
    object_at,
    optional_text,
    optional_truth,
    text_field,
    texts_field,
    truth,
    truth_field,
    wrong,
)
from stepcredit.data.foreign.rows import UNHELD, joined_steps, note_lost, others
from stepcredit.data.messages import (
    messages_from_json,
    plain_prompt,
    prompt_field,
    prompt_name,
    response_turns,
)
from stepcredit.errors import DataError
from stepcredit.types import Message, PromptText, Rollout, StepLabel
from stepcredit.wording import quantity

_UNHELD = (*UNHELD, "step_labels")


def read_ultrainteract(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """One rollout a completion; verdicts beyond the last completion are of no use."""
    prompt = prompt_field(row, "prompt", where)
    completions, correctness = texts_field(row, "completions", where), row.get("correctness")
    if not isinstance(correctness, list) or len(correctness) < len(completions):
        raise wrong(row, "correctness", f"a list of at least {quantity(len(completions), 'verdict')}", where)
    verdicts = [truth(value) for value in correctness[: len(completions)]]
    if None in verdicts:
        raise wrong(row, "correctness", "a list of true or false (or 1 or 0)", where)
    for index, (completion, correct) in enumerate(zip(completions, verdicts, strict=True)):
        yield Rollout(
            id=f"{position}/{index}",
            prompt_id=prompt_name(prompt),
            index=index,
            prompt=prompt,
            response=completion,
            correct=correct,
            extras=others(row, "prompt", "completions", "correctness"),
        )


def read_ultrafeedback(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """One rollout for each object of ``completions``; its ratings stay its extras, and are no verdict."""
    prompt = prompt_field(row, "instruction" if "instruction" in row else "prompt", where)
    completions = row.get("completions")
    if not isinstance(completions, list) or not completions:
        raise wrong(row, "completions", "a list of objects with response, not empty", where)
    shared = others(row, "instruction", "prompt", "completions", "models")
    for index, value in enumerate(completions):
        path = f"completions[{index}]"
        completion = object_at(value, path, "response", where)
        yield Rollout(
            id=f"{position}/{index}",
            prompt_id=prompt_name(prompt),
            index=index,
            prompt=prompt,
            response=text_field(completion, "response", where, f"{path}.", empty=True),
            correct=optional_truth(completion, "correct", where),
            policy=optional_text(completion, "model", where),
            extras=shared | others(completion, "response", "correct", "model"),
        )


def read_trl_preference(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """The chosen response counts as right, the rejected one as wrong; the prompt may be inside both."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if row.get("prompt") is None:
        prompt, chosen, rejected = _implicit_prompt(row, where)
    else:
        prompt = prompt_field(row, "prompt", where)
        chosen, rejected = _after_prompt(prompt, chosen), _after_prompt(prompt, rejected)
    extras = others(row, "id", "prompt", "chosen", "rejected")
    name = name_field(row, "id", where) if row.get("id") is not None else str(position)
    for index, (field, side) in enumerate((("chosen", chosen), ("rejected", rejected))):
        response, turns = _completion({field: side}, field, where)
        yield Rollout(
            id=f"{name}/{field}",
            prompt_id=prompt_name(prompt),
            index=index,
            prompt=prompt,
            response=response,
            turns=turns,
            correct=field == "chosen",
            extras=extras,
        )


def read_trl_unpaired(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """One rollout a row."""
    prompt = prompt_field(row, "prompt", where)
    response, turns = _completion(row, "completion", where)
    yield Rollout(
        id=name_field(row, "id", where) if row.get("id") is not None else str(position),
        prompt_id=prompt_name(prompt),
        prompt=prompt,
        response=response,
        turns=turns,
        correct=truth_field(row, "label", where),
        extras=others(row, "id", "prompt", "completion", "label"),
    )


def read_trl_stepwise(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """The steps, joined by line ends as TRL does by default, with a label each."""
    prompt = prompt_field(row, "prompt", where)
    steps, labels = texts_field(row, "completions", where), row.get("labels")
    if not isinstance(labels, list) or len(labels) != len(steps) or None in map(truth, labels):
        raise wrong(row, "labels", f"a list of {quantity(len(steps), 'boolean')}", where)
    response, ends = joined_steps(steps, "\n")
    extras = others(row, "id", "prompt", "completions", "labels")
    if any(step != step.strip() or "\n" in step for step in steps):
        extras["steps"] = steps  # which cutting at line ends would not give
    yield Rollout(
        id=name_field(row, "id", where) if row.get("id") is not None else str(position),
        prompt_id=prompt_name(prompt),
        prompt=prompt,
        response=response,
        step_labels=tuple(StepLabel(end, float(label)) for end, label in zip(ends, labels, strict=True)),
        extras=extras,
    )


def read_openrlhf_ce(row: Mapping[str, Any], where: str, _position: int) -> Iterator[Rollout]:
    """``response`` holds the user's turn and the assistant's."""
    messages = row.get("response")
    if not isinstance(messages, list) or len(messages) != 2:
        raise wrong(row, "response", "a list of the user's message and the assistant's", where)
    messages_from_json(messages[:1], "response", where)
    prompt = text_field(messages[0], "content", where)
    response, turns = _completion({"response": messages[1:]}, "response", where)
    yield Rollout(
        id=name_field(row, "id", where),
        prompt_id=prompt_name(prompt),
        prompt=prompt,
        response=response,
        turns=turns,
        correct=truth_field(row, "label", where),
        extras=others(row, "response", "id", "label"),
    )


def write_trl_preference(rollouts: Iterable[Rollout], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Pairs of a right and a wrong response to the same prompt that differ, each used once.

    Responses pair up within a run of rows of the same prompt.
    """
    for _, group in groupby(rollouts, key=lambda rollout: rollout.prompt_id):
        members = list(group)
        right = [rollout for rollout in members if rollout.correct is True]
        wrong_ones = [rollout for rollout in members if rollout.correct is False]
        pairs = list(_pairs_that_differ(right, wrong_ones))
        possible = min(len(right), len(wrong_ones))
        lost["responses without a partner"] += len(members) - 2 * possible
        lost["responses whose partner would be the same text"] += 2 * (possible - len(pairs))
        for chosen, rejected in pairs:
            for rollout in (chosen, rejected):
                note_lost(rollout, lost, "id", "prompt_id", *_UNHELD)
            lost["extra fields of rejected responses"] += any(
                name not in chosen.extras or chosen.extras[name] != value
                for name, value in rejected.extras.items()
            )
            yield _row(
                chosen.extras,
                lost,
                prompt=_plain(chosen.prompt),
                chosen=_as_completion(chosen),
                rejected=_as_completion(rejected),
            )


def _pairs_that_differ(
    right: Sequence[Rollout], wrong_ones: Sequence[Rollout]
) -> Iterator[tuple[Rollout, Rollout]]:
    """Each right response with the first wrong one that is left and is another text."""
    left = list(wrong_ones)
    for chosen in right:
        for position, rejected in enumerate(left):
            if rejected.response != chosen.response:
                yield chosen, left.pop(position)
                break


def write_trl_unpaired(rollouts: Iterable[Rollout], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Graded responses, one a row."""
    for rollout in rollouts:
        if rollout.correct is None:
            lost["responses without a verdict"] += 1
            continue
        note_lost(rollout, lost, "id", "prompt_id", *_UNHELD)
        yield _row(
            rollout.extras,
            lost,
            prompt=_plain(rollout.prompt),
            completion=_as_completion(rollout),
            label=rollout.correct,
        )


def write_trl_stepwise(rollouts: Iterable[Rollout], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Labelled steps; a label of one half or more is true."""
    for rollout in rollouts:
        if not rollout.step_labels:
            lost["responses without step labels"] += 1
            continue
        note_lost(rollout, lost, "id", "prompt_id", "correct", *UNHELD)
        ends = [label.end for label in rollout.step_labels]
        steps = [rollout.response[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        lost["unlabelled ends of responses"] += ends[-1] < len(rollout.response)
        lost["labels between 0 and 1"] += any(label.label not in (0.0, 1.0) for label in rollout.step_labels)
        lost["separators other than a line end"] += any(not step.endswith("\n") for step in steps[:-1])
        yield _row(
            others(rollout.extras, "steps"),
            lost,
            prompt=_plain(rollout.prompt),
            completions=[step.removesuffix("\n") for step in steps[:-1]] + steps[-1:],
            labels=[label.label >= 0.5 for label in rollout.step_labels],
        )


def write_openrlhf_ce(rollouts: Iterable[Rollout], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Graded responses to one user's turn; ``label`` is 1 or 0."""
    for rollout in rollouts:
        prompt = _single_turn(rollout.prompt)
        if rollout.correct is None:
            lost["responses without a verdict"] += 1
            continue
        if prompt is None or rollout.turns is not None:
            lost["responses to conversations of several turns"] += 1
            continue
        note_lost(rollout, lost, "prompt_id", *_UNHELD)
        user, assistant = (
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": rollout.response},
        )
        yield _row(
            {"dataset": "unknown", **rollout.extras},
            lost,
            response=[user, assistant],
            id=rollout.id,
            label=int(rollout.correct),
        )


def _row(extras: Mapping[str, Any], lost: Counter[str], **fields: Any) -> dict[str, Any]:
    """The format's fields, then the extras that do not bear the name of one."""
    for name in extras.keys() & fields.keys():
        lost[f"extra field {name!r}"] += 1
    return {**fields, **{name: value for name, value in extras.items() if name not in fields}}


def _plain(prompt: PromptText) -> str | list[Message]:
    return prompt if isinstance(prompt, str) else list(prompt)


def _as_completion(rollout: Rollout) -> str | list[dict[str, Any]]:
    """In a conversation where the prompt is one."""
    if rollout.turns is not None:
        return plain_prompt(rollout.turns)
    if isinstance(rollout.prompt, str):
        return rollout.response
    return [{"role": "assistant", "content": rollout.response}]


def _single_turn(prompt: PromptText) -> str | None:
    if isinstance(prompt, str):
        return prompt
    only = prompt[0] if len(prompt) == 1 else None
    return (
        content_text(only)
        if only is not None and only["role"] == "user" and set(only) == {"role", "content"}
        else None
    )


def _completion(row: Mapping[str, Any], field: str, where: str) -> tuple[str, tuple[Message, ...] | None]:
    """A completion's text, and its turns where it has several or calls tools."""
    value = row.get(field)
    if isinstance(value, str):
        return value, None
    if not isinstance(value, list) or not value:
        raise wrong(row, field, "a string or a list of messages, not empty", where)
    return response_turns(value, field, where)


def _after_prompt(prompt: PromptText, side: Any) -> Any:
    """A side without the prompt's own turns, which some sets repeat in it."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return side[len(turns) :] if isinstance(side, list) and side[: len(turns)] == turns else side


def _implicit_prompt(row: Mapping[str, Any], where: str) -> tuple[PromptText, Any, Any]:
    """Prompt and completions of a row whose two sides both start with the prompt."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        length = _common(chosen, rejected)
        start = chosen.rfind(" ", 0, length) + 1 if length < min(len(chosen), len(rejected)) else length
        if not chosen[:start].strip():
            raise DataError(
                "there is no 'prompt', and 'chosen' and 'rejected' share no start that could be it",
                where=where,
            )
        return chosen[:start], chosen[start:], rejected[start:]
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise wrong(row, "chosen", "like 'rejected': a string or a list of messages", where)
    length = min(_common(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    if length < 1:
        raise DataError("there is no 'prompt', and 'chosen' and 'rejected' share no first turn", where=where)
    return messages_from_json(chosen[:length], "chosen", where), chosen[length:], rejected[length:]


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many elements two sequences share from the start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))

"""From graded rollouts to training examples: what is left out and why is counted."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from stepcredit.data.pairing import balance_responses, mismatch_responses, pair_responses
from stepcredit.encoding import ChatEncoding, EncodedSteps, Encoding, EncodingError, read_positions
from stepcredit.encoding.base import StepEncoding
from stepcredit.errors import DataError
from stepcredit.objectives import Objective
from stepcredit.steps import listed_steps, locate
from stepcredit.training.config import TrainConfig
from stepcredit.training.counts import left_out
from stepcredit.types import Encoded, Rollout, Step
from stepcredit.wording import agree, every, quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One response as the trainer sees it.

    Attributes:
        label: 1 if its final answer is right, else 0.
        step_targets: (scored token, label) for each labelled step, at the step's last token.
    """

    id: str
    prompt_id: str
    encoded: Encoded
    label: float
    step_targets: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What is trained on.

    Attributes:
        units: Indices into ``examples``: one for unpaired objectives, (chosen, rejected) for paired ones.
        mismatched: For each example, its prompt with another prompt's response; empty where not needed.
        counts: What came in, what was left out and why.
    """

    examples: tuple[Example, ...]
    units: tuple[tuple[int, ...], ...]
    mismatched: tuple[Encoded, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def epoch_tokens(self) -> int:
        """Tokens of all units, so a response counts as often as it is in one."""
        return sum(len(self.examples[row].encoded.token_ids) for unit in self.units for row in unit)

    def groups(self, *, by_prompt: bool) -> list[list[int]]:
        """Units that are shuffled together: each alone, or those of one prompt."""
        if not by_prompt:
            return [[unit] for unit in range(len(self.units))]
        groups: dict[str, list[int]] = {}
        for unit, rows in enumerate(self.units):
            groups.setdefault(self.examples[rows[0]].prompt_id, []).append(unit)
        return list(groups.values())


def encode_examples(
    rollouts: Iterable[Rollout],
    encoding: Encoding,
    *,
    objective: Objective,
    over_long: str = "drop",
    last_step_only: bool = False,
    counts: dict[str, int] | None = None,
) -> list[Example]:
    """Encode what can be trained on.

    Args:
        rollouts: With ``correct`` set, or with step labels for step objectives; others are counted.
        encoding: The format; its ``max_tokens`` decides what is over-long.
        over_long: ``drop``, or ``truncate`` after the last whole step that fits.
        last_step_only: Whether only a response's last step keeps its label.
        counts: Receives ``rollouts``, ``not_graded``, ``no_step_labels``, ``truncated`` and the kinds of
            :class:`~stepcredit.encoding.EncodingError` with underscores.
    """
    counts = {} if counts is None else counts
    examples = []
    for rollout in rollouts:
        _count(counts, "rollouts")
        if objective.needs_step_labels and not rollout.step_labels:
            _count(counts, "no_step_labels")
            continue
        if not objective.needs_step_labels and rollout.correct is None:
            _count(counts, "not_graded")
            continue
        try:
            result = _encode(rollout, encoding)
        except EncodingError as error:
            may_cut = over_long == "truncate" and error.kind == "too-long"
            shortened = _truncate(rollout, encoding) if may_cut else None
            if shortened is None:
                _count(counts, error.kind.replace("-", "_"))
                continue
            _count(counts, "truncated")
            rollout, result = shortened
        targets: tuple[tuple[int, float], ...] = ()
        if objective.needs_step_labels:
            targets = _step_targets(rollout, result)[-1 if last_step_only else 0 :]
        examples.append(
            Example(
                id=rollout.id,
                prompt_id=rollout.prompt_id,
                encoded=result.encoded,
                label=float(bool(rollout.correct)),
                step_targets=targets,
            )
        )
    return examples


def make_training_set(
    rollouts: Iterable[Rollout],
    encoding: Encoding,
    objective: Objective,
    config: TrainConfig,
    *,
    seed: int,
) -> TrainingSet:
    """Encode, balance and pair.

    Raises:
        DataError: Nothing is left to train on, with the reason.
    """
    counts: dict[str, int] = {}
    examples = encode_examples(
        rollouts,
        encoding,
        objective=objective,
        over_long=config.over_long,
        last_step_only=config.last_step_only,
        counts=counts,
    )
    check_distinguishes(examples, counts, by_outcome=not objective.needs_step_labels)
    all_examples, examples = examples, balanced(examples, config, seed)
    if len(examples) < len(all_examples):
        counts["dropped_by_balancing"] = len(all_examples) - len(examples)
    if not examples:
        raise DataError(
            "no prompt has both right and wrong responses, so balancing leaves nothing",
            where="--balance",
            hint="sample more responses to each prompt, or use --balance dataset",
        )
    units, mismatched = units_of(examples, encoding, objective, config, seed, counts)
    counts["examples"], counts["units"] = len(examples), len(units)
    return TrainingSet(examples=tuple(examples), units=units, mismatched=mismatched, counts=counts)


def check_distinguishes(
    examples: Sequence[Example], counts: dict[str, int], *, where: str | None = None, by_outcome: bool = True
) -> None:
    """Refuse responses from which nothing can be learned or measured.

    Args:
        counts: Why responses were left out, as :func:`encode_examples` fills it.
        by_outcome: Whether both outcomes are needed.

    Raises:
        DataError: There are none, or they are all right or all wrong.
    """
    if not examples:
        raise DataError(_nothing_left(counts), where=where, hint=_hint(counts))
    right = [example.label > 0.5 for example in examples]
    if by_outcome and len(set(right)) == 1:
        problem = _one_class(len(right), right=right[0])
        raise DataError(problem, where=where, hint=_for_both_classes(right=right[0]))


def balanced(examples: Sequence[Example], config: TrainConfig, seed: int) -> list[Example]:
    """The examples that ``config.balance`` leaves, in their order; it may leave none."""
    prompt_ids = [example.prompt_id for example in examples]
    right = [example.label > 0.5 for example in examples]
    kept = balance_responses(prompt_ids, right, config.balance, seed=seed)  # type: ignore[arg-type]
    return [examples[int(index)] for index in kept]


def units_of(
    examples: Sequence[Example],
    encoding: Encoding,
    objective: Objective,
    config: TrainConfig,
    seed: int,
    counts: dict[str, int],
) -> tuple[tuple[tuple[int, ...], ...], tuple[Encoded, ...]]:
    """Units of an objective and, where it needs them, mismatched responses.

    Args:
        encoding: What the examples were encoded by; mismatched responses fit its longest sequence too.
        objective: Decides whether units are pairs.
        config: Most pairs per prompt.
        seed: Of the choice of pairs and the order of mismatches.

    Raises:
        DataError: The objective compares pairs, and there is none.
    """
    prompt_ids = [example.prompt_id for example in examples]
    if objective.paired:
        right = [example.label > 0.5 for example in examples]
        contents = [example.encoded.token_ids for example in examples]
        pairs = pair_responses(prompt_ids, right, contents, limit=config.pairs_per_prompt, seed=seed)
        counts["prompts_with_pairs"] = pairs.num_prompts
        counts["prompts_all_right"], counts["prompts_all_wrong"] = pairs.only_right, pairs.only_wrong
        counts["pairs_that_do_not_differ"] = pairs.identical
        counts["pairs_over_limit"] = pairs.not_used
        if not pairs.indices and pairs.identical:
            raise DataError(
                f"no pair differs: in {every(pairs.identical, 'pair')} the right and the wrong response are "
                "the same",
                hint="check the verdicts, since one response has both, or sample more responses per prompt",
            )
        if not pairs.indices:
            raise DataError(
                "no prompt has both a right and a wrong response, so there is no pair",
                hint="sample more responses to each prompt, or use an unpaired objective (ce, kto)",
            )
        return pairs.indices, ()
    mismatched: tuple[Encoded, ...] = ()
    if objective.needs_mismatched:
        order = mismatch_responses(prompt_ids, seed=seed)
        longest = getattr(encoding, "max_tokens", None)
        mismatched = tuple(
            _swap_response(example.encoded, examples[int(other)].encoded, longest)
            for example, other in zip(examples, order, strict=True)
        )
    return tuple((index,) for index in range(len(examples))), mismatched


def _swap_response(prompt: Encoded, response: Encoded, longest: int | None) -> Encoded:
    """The prompt of one with the response of the other, which is cut off at the longest sequence."""
    shift = prompt.scored_start - response.scored_start
    token_ids = prompt.token_ids[: prompt.scored_start] + response.token_ids[response.scored_start :]
    gaps = [(start + shift, end + shift) for start, end in response.skipped]
    stop = len(token_ids[:longest])
    # No sequence ends with what is not scored.
    stop = next((start for start, end in gaps if start < stop <= end), stop)
    return Encoded(
        token_ids=token_ids[:stop],
        scored_start=prompt.scored_start,
        skipped=tuple((start, end) for start, end in gaps if end < stop),
    )


def _encode(rollout: Rollout, encoding: Encoding) -> EncodedSteps:
    """Encode, with the steps that the labels name where there are labels."""
    if not rollout.step_labels:
        return _up_to_last_step(encoding.encode(rollout))
    steps: list[Step] = []
    start = 0
    for index, label in enumerate(rollout.step_labels):
        steps.append(Step(index, rollout.response[start : label.end], start, label.end))
        start = label.end
    if start < len(rollout.response):
        steps.append(Step(len(steps), rollout.response[start:], start, len(rollout.response)))
    if isinstance(encoding, ChatEncoding):
        return encoding.encode_with_steps(rollout, tuple(steps))
    if not _lists(rollout, steps):
        rollout = replace(rollout, extras={**rollout.extras, "steps": [step.text.strip() for step in steps]})
    return _up_to_last_step(encoding.encode(rollout))


def _lists(rollout: Rollout, steps: Sequence[Step]) -> bool:
    """Whether the row itself lists these steps, which are then taken as they are."""
    listed = listed_steps(rollout)
    if listed is None or len(listed) != len(steps):
        return False
    return [step.end for step in locate(rollout, listed)] == [step.end for step in steps]


def _up_to_last_step(result: EncodedSteps) -> EncodedSteps:
    """Without tokens after the last step's, such as the answer to it: no score is read there."""
    encoded = result.encoded
    end = read_positions(encoded)[-1] + 1
    return replace(result, encoded=replace(encoded, token_ids=encoded.token_ids[:end]))


def _step_targets(rollout: Rollout, result: EncodedSteps) -> tuple[tuple[int, float], ...]:
    """A label sits at its step's last token; a step without tokens has no place for one."""
    targets = []
    previous = 0
    labels = rollout.step_labels or ()
    for label, end in zip(labels, result.encoded.step_ends, strict=False):
        if end > previous:
            targets.append((end - 1, label.label))
        previous = end
    return tuple(targets)


def _truncate(rollout: Rollout, encoding: Encoding) -> tuple[Rollout, EncodedSteps] | None:
    """The longest start of the response that fits and ends with a step, marked as cut off."""
    if not isinstance(encoding, StepEncoding) or rollout.turns is not None:
        return None
    unlimited = copy.copy(encoding)
    unlimited.max_tokens = None
    whole = _encode(rollout, unlimited)
    assert encoding.max_tokens is not None
    room = encoding.max_tokens - whole.encoded.scored_start
    fitting = [number for number, end in enumerate(whole.encoded.step_ends, 1) if 0 < end <= room]
    if not fitting:
        return None
    number = fitting[-1]
    end = whole.encoded.step_ends[number - 1]
    encoded = Encoded(
        whole.encoded.token_ids[: whole.encoded.scored_start + end],
        whole.encoded.scored_start,
        whole.encoded.step_ends[:number],
    )
    text_end = whole.steps[number - 1].end
    cut = replace(
        rollout,
        response=rollout.response[:text_end],
        finish_reason="length",
        step_labels=None if rollout.step_labels is None else rollout.step_labels[:number],
    )
    return cut, replace(whole, encoded=encoded, steps=whole.steps[:number], token_ends=whole.token_ends[:end])


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1


def _nothing_left(counts: dict[str, int]) -> str:
    if not counts.get("rollouts"):
        return "there are no rollouts to train on"
    reasons = ", ".join(left_out(counts))
    return f"none of {quantity(counts['rollouts'], 'rollout')} can be used ({reasons})"


def _one_class(number: int, *, right: bool) -> str:
    which = f"{every(number, 'usable response')} {agree(number, 'is', 'are')}"
    return f"{which} {'right' if right else 'wrong'}, so there is nothing to distinguish"


def _for_both_classes(*, right: bool) -> str:
    if right:
        return "add harder prompts, or check the grading"
    return (
        "add easier prompts, sample from a stronger model or with a larger --max-new-tokens, or check the "
        "grading"
    )


def _hint(counts: dict[str, int]) -> str:
    if counts.get("not_graded"):
        return "grade them first with: stepcredit grade"
    if counts.get("no_step_labels"):
        return "label their steps first with: stepcredit label"
    if counts.get("too_long"):
        return "pass --over-long truncate, a larger --max-tokens, or a model with a longer context"
    return "check the file"

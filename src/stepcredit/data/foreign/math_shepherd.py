"""Math-Shepherd's rows, as OpenRLHF trains process reward models on: steps that end in a tag or a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from stepcredit.data.fields import text_field
from stepcredit.data.foreign.rows import UNHELD, joined_steps, note_lost, others
from stepcredit.data.messages import prompt_name
from stepcredit.errors import DataError
from stepcredit.types import Rollout, StepLabel

_TAG, _START = "ки", "Step 1:"


def read_math_shepherd(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """Steps end in a tag in ``input`` and in ``+`` or ``-`` in ``label``; the last one is the outcome."""
    tagged, labelled = text_field(row, "input", where), text_field(row, "label", where)
    start = tagged.find(_START)
    if start < 0:
        raise DataError("field 'input' has no 'Step 1:', where the response starts", where=where)
    *pieces, rest = tagged.split(_TAG)
    labels: list[float] = []
    offset = 0
    for number, piece in enumerate(pieces, 1):
        offset += len(piece)
        mark = labelled[offset : offset + 1]
        if mark not in ("+", "-") or not labelled.startswith(piece, offset - len(piece)):
            raise DataError(f"field 'label' does not follow 'input' up to tag {number}", where=where)
        labels.append(float(mark == "+"))
        offset += 1
    if not pieces or len(pieces[0]) < start:
        raise DataError("field 'input' has no tag after its first step", where=where)
    prompt = tagged[:start].strip()
    texts = [pieces[0][start:].strip(), *(piece.strip() for piece in pieces[1:])]
    if rest.strip():
        texts.append(rest.strip())
    response, ends = joined_steps(texts, "\n")
    if not prompt:
        raise DataError("field 'input' has no question before its first step", where=where)
    yield Rollout(
        id=str(position),
        prompt_id=prompt_name(prompt),
        prompt=prompt,
        response=response,
        correct=None if rest.strip() else labels[-1] == 1.0,
        step_labels=tuple(StepLabel(end, label) for end, label in zip(ends, labels, strict=False)),
        extras={**others(row, "input", "label"), "steps": texts},
    )


def write_math_shepherd(rollouts: Iterable[Rollout], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Labelled steps, numbered where they are not; a label of one half or more is ``+``."""
    for rollout in rollouts:
        if not isinstance(rollout.prompt, str):
            lost["responses to conversations"] += 1
            continue
        if not rollout.step_labels:
            lost["responses without step labels"] += 1
            continue
        ends = [0, *(label.end for label in rollout.step_labels)]
        steps = [rollout.response[start:end].strip() for start, end in pairwise(ends)]
        if any(_TAG in step for step in steps) or _TAG in rollout.prompt:
            lost["responses that hold the tag"] += 1
            continue
        if _START in rollout.prompt:
            lost[f"responses to prompts that hold {_START!r}"] += 1
            continue
        note_lost(rollout, lost, *UNHELD)
        is_right = rollout.step_labels[-1].label >= 0.5
        lost["verdicts that the last label does not give"] += rollout.correct is (not is_right)
        lost["unlabelled ends of responses"] += ends[-1] < len(rollout.response)
        lost["labels between 0 and 1"] += any(label.label not in (0.0, 1.0) for label in rollout.step_labels)
        lost["texts of steps that had no number"] += not steps[0].startswith(_START)
        if not steps[0].startswith(_START):
            steps = [f"Step {number}: {step}" for number, step in enumerate(steps, 1)]
        marks = ["+" if label.label >= 0.5 else "-" for label in rollout.step_labels]
        tagged, labelled = (
            f"{rollout.prompt} " + "\n".join(map(" ".join, zip(steps, ends_of_steps, strict=True)))
            for ends_of_steps in ([_TAG] * len(steps), marks)
        )
        yield {**rollout.extras, "input": tagged, "label": labelled}

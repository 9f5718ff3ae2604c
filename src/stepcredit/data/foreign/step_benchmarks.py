"""Step-labelled benchmarks and data sets: ProcessBench, PRMBench, BIG-Bench-Mistake, PRM800K.

Each row becomes a rollout with ``step_labels``. Rows that list their steps keep the list in the extra field
``steps``; it is what the step rules and the published conventions read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.data.fields import (
    is_number,
    name_field,
    optional_text,
    shown,
    text_field,
    texts_field,
    truth_field,
    wrong,
)
from stepcredit.data.foreign.rows import joined_steps, labels_until_error, others
from stepcredit.data.messages import prompt_field, prompt_name
from stepcredit.errors import DataError
from stepcredit.types import FinishReason, Rollout, StepLabel


def read_processbench(row: Mapping[str, Any], where: str, _position: int) -> Iterator[Rollout]:
    """``label`` is the first wrong step, -1 for none; it stays an extra, for the published evaluation."""
    steps = texts_field(row, "steps", where)
    label = row.get("label")
    if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(steps):
        raise wrong(row, "label", f"-1 or the index of a step, at most {len(steps) - 1}", where)
    response, ends = joined_steps(steps)
    problem = text_field(row, "problem", where)
    yield Rollout(
        id=name_field(row, "id", where),
        prompt_id=prompt_name(problem),
        prompt=problem,
        response=response,
        correct=truth_field(row, "final_answer_correct", where) if "final_answer_correct" in row else None,
        policy=optional_text(row, "generator", where),
        step_labels=labels_until_error(ends, None if label == -1 else label),
        extras=others(row, "id", "problem", "generator", "final_answer_correct"),
    )


def read_prmbench(row: Mapping[str, Any], where: str, _position: int) -> Iterator[Rollout]:
    """The modified process; ``error_steps`` count from 1, those beyond the last step are of no use."""
    steps = texts_field(row, "modified_process", where)
    wrong_steps = row.get("error_steps")
    if not isinstance(wrong_steps, list) or not all(type(step) is int and step > 0 for step in wrong_steps):
        raise wrong(row, "error_steps", "a list of step numbers, counted from 1", where)
    response, ends = joined_steps(steps)
    question = text_field(row, "modified_question", where)
    labels = (StepLabel(end, float(number not in wrong_steps)) for number, end in enumerate(ends, 1))
    yield Rollout(
        id=name_field(row, "idx", where),
        prompt_id=prompt_name(question),
        prompt=question,
        response=response,
        step_labels=tuple(labels),
        extras={**others(row, "idx", "modified_question"), "steps": list(steps)},
    )


def read_bigbench_mistake(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """``mistake_index`` is the first wrong step, counted from 0, null for none."""
    steps = texts_field(row, "steps", where)
    mistake = row.get("mistake_index")
    in_range = isinstance(mistake, int) and not isinstance(mistake, bool) and 0 <= mistake < len(steps)
    if mistake is not None and not in_range:
        raise wrong(row, "mistake_index", f"null or the index of a step, at most {len(steps) - 1}", where)
    response, ends = joined_steps(steps)
    question = text_field(row, "input", where)
    target, answer = optional_text(row, "target", where), optional_text(row, "answer", where)
    yield Rollout(
        id=str(position),
        prompt_id=prompt_name(question),
        prompt=question,
        response=response,
        answer=target,
        correct=None if target is None or answer is None else target.strip() == answer.strip(),
        prediction=answer,
        step_labels=labels_until_error(ends, mistake),
        extras=others(row, "input", "target", "answer"),
    )


def read_prm800k(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    """The labelled path: at each step the chosen completion, or the human's where none was chosen.

    Ratings 1, 0 and -1 become the labels 1, 0.5 and 0; a human's own step counts as right. A path that the
    labeller left at a wrong step ends with that step, and its end-of-turn is not scored.
    """
    question, label = row.get("question"), row.get("label")
    if not isinstance(question, dict):
        raise wrong(row, "question", "an object", where)
    if not isinstance(label, dict) or not isinstance(label.get("steps"), list) or not label["steps"]:
        raise wrong(row, "label", "an object with steps", where)
    texts: list[str] = []
    values: list[float | None] = []
    for number, step in enumerate(label["steps"]):
        path_step = _path_step(step, f"label.steps[{number}]", where)
        if path_step is None:
            break
        texts.append(path_step[0])
        values.append(path_step[1])
    if not texts:
        raise DataError("no step of the path has a text", where=where)
    response, ends = joined_steps(texts)
    labelled = values.index(None) if None in values else len(values)
    finish: FinishReason = "stop" if label.get("finish_reason") == "solution" else "length"
    yield Rollout(
        id=str(position),
        prompt_id=prompt_name(text_field(question, "problem", where)),
        prompt=question["problem"],
        response=response,
        answer=optional_text(question, "ground_truth_answer", where),
        finish_reason=finish,
        policy=optional_text(row, "generation", where),
        step_labels=tuple(
            StepLabel(end, value)
            for end, value in zip(ends[:labelled], values[:labelled], strict=True)
            if value is not None
        ),
        extras={**others(row, "question", "label", "generation"), "steps": texts},
    )


_RATINGS = {1: 1.0, 0: 0.5, -1: 0.0}


def _path_step(step: Any, path: str, where: str) -> tuple[str, float | None] | None:
    """Text and label of the path's step, ``None`` where the path ends before it."""
    if not isinstance(step, dict):
        raise DataError(f"field {path!r} must be an object, not {shown(step)}", where=where)
    completions = step.get("completions") or []
    chosen, human = step.get("chosen_completion"), step.get("human_completion")
    if not isinstance(completions, list) or not all(isinstance(item, dict) for item in completions):
        raise DataError(f"field '{path}.completions' must be a list of objects", where=where)
    if isinstance(chosen, int) and not isinstance(chosen, bool):
        if not 0 <= chosen < len(completions):
            raise DataError(
                f"field '{path}.chosen_completion' is {chosen}, but there are {len(completions)}", where=where
            )
        return _rated(completions[chosen], path, where)
    if isinstance(human, dict):
        text, value = _rated(human, f"{path}.human_completion", where)
        return text, 1.0 if value is None else value
    rejected = [item for item in completions if item.get("rating") == -1]
    return _rated(rejected[0], path, where) if rejected else None


def _rated(completion: Mapping[str, Any], path: str, where: str) -> tuple[str, float | None]:
    rating = completion.get("rating")
    if rating is not None and not (is_number(rating) and rating in _RATINGS):
        raise DataError(f"a rating of {path!r} must be -1, 0, 1 or null, not {shown(rating)}", where=where)
    if not isinstance(completion.get("text"), str):
        raise DataError(f"a completion of {path!r} has no text", where=where)
    return completion["text"], None if rating is None else _RATINGS[int(rating)]


class BestOfNReader:
    """Rows of the published best-of-n evaluator: the samples of an ``idx`` are one prompt's responses."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, row: Mapping[str, Any], where: str, _position: int) -> Iterator[Rollout]:
        """Read one row; ``index`` counts the samples of its ``idx``."""
        idx = name_field(row, "idx", where)
        index = self._seen[idx]
        self._seen[idx] += 1
        yield Rollout(
            id=idx,
            prompt_id=idx,
            index=index,
            prompt=prompt_field(row, "prompt", where),
            response=text_field(row, "response", where, empty=True),
            answer=optional_text(row, "reference", where),
            correct=truth_field(row, "correctness", where) if row.get("correctness") is not None else None,
            prediction=optional_text(row, "extracted_output", where),
            extras=others(row, "idx", "prompt", "response", "reference", "correctness", "extracted_output"),
        )

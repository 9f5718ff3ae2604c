"""Grade rollouts: is each final answer right?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from stepcredit.conversations import final_text
from stepcredit.data import count_rows, finish_lines, read_rollouts_as, rollout_from_json, rollout_to_json
from stepcredit.data.foreign import ROLLOUT_FORMATS
from stepcredit.errors import DataError
from stepcredit.grading import CRASHED, TIMEOUT, UNREAD, Grader, GradingItem
from stepcredit.grading.options import GraderOptions, grader_of
from stepcredit.options import OutputResult, argument, option
from stepcredit.runs import Manifest, Progress, ResumableLines, read_manifest
from stepcredit.runs.cluster import over_ray
from stepcredit.thinking import thinking_end
from stepcredit.types import Rollout
from stepcredit.wording import agree, quantity

_ROLLOUTS_AT_ONCE = 1024
FAILURE_FIELD = "grading_failure"
"""Extra field of rollouts whose answer was not read as a whole, timed out or crashed, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Options(GraderOptions):
    """What to grade and how."""

    rollouts: Path = argument("rollouts to grade")
    grader: str = option(
        "math, numeric, exact, choice, code, reasoning-gym or python:module:function", metavar="NAME"
    )
    out: Path = option("file to write", metavar="FILE")
    format: str = option(f"format of the input: {ROLLOUT_FORMATS}", default="rollouts", metavar="FORMAT")
    regrade: bool = option("also replace existing verdicts", default=False)
    ray: str | None = option(
        "address of the Ray cluster to spread the work over; local starts one on this machine's cores",
        default=None,
        metavar="ADDRESS",
    )
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace the existing output and start over", default=False)


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was graded.

    Attributes:
        counts: Rollouts in; kept verdicts (and how many of them got a prediction), without an answer,
            graded; right and wrong among all with a verdict; found no answer, not read, timed out, crashed;
            rows skipped.
    """

    counts: dict[str, int]

    def to_text(self) -> str:
        """A few lines for a person."""
        counts = self.counts
        judged = counts.get("right", 0) + counts.get("wrong", 0)
        share = f", {counts.get('right', 0) / judged:.1%} right" if judged else ""
        lines = [
            f"{self.out}: {self.state}",
            f"  {quantity(counts.get('rollouts', 0), 'rollout')}, {judged:,} with a verdict{share}",
        ]
        notes = [
            f"  {counts[name]:,} {agree(counts[name], *words)}"
            for name, words in _NOTES.items()
            if counts.get(name)
        ]
        return "\n".join(lines + notes)


_NOTES = {
    "kept": ("had a verdict before and kept it (--regrade replaces it)",) * 2,
    "filled": ("of them had no prediction and got one",) * 2,
    "without_answer": (
        "has no reference answer and stays ungraded",
        "have no reference answer and stay ungraded",
    ),
    "no_prediction": ("states no answer", "state no answer"),
    "only_in_thinking": (
        "of these states one only inside its thinking, which does not count",
        "of these state one only inside their thinking, which does not count",
    ),
    "unread": (
        "was wrong because its answer or the reference could not be read as a whole",
        "were wrong because their answers or the references could not be read as a whole",
    ),
    "timeout": ("timed out",) * 2,
    "crashed": ("crashed the grader",) * 2,
    "skipped": ("malformed row skipped", "malformed rows skipped"),
}
"""What a count's line says of one rollout, and of several."""


def run(options: Options) -> Result:
    """Grade a file, or go on where an earlier run of the same work stopped."""
    finalise = finish_lines(options.out)
    rollouts = read_rollouts_as(options.rollouts, options.format, skip_invalid=options.skip_invalid)
    with contextlib.ExitStack() as stack:
        grader = stack.enter_context(grader_of(options))
        manifest = _manifest(options, grader)
        lines = stack.enter_context(ResumableLines(options.out, manifest, overwrite=options.overwrite))
        if lines.complete:
            earlier = read_manifest(options.out) or {}
            return Result(out=options.out, already_done=True, counts=earlier["counts"])
        done = _outcomes(lines, grader)
        todo = _not_done(rollouts, done, options, manifest)
        title = f"grade {options.rollouts.name}"
        with Progress(title, count_rows(options.rollouts), "rollouts", done=len(done)) as progress:
            if options.ray is None:
                rows = _graded(todo, grader, options, manifest)
            else:
                rows = _graded_over_ray(todo, options, manifest, lines)
            for row in rows:
                lines.append(row)
                progress.advance()
        _check_not_empty(options, manifest, lines)
        if rollouts.num_skipped:
            manifest.count("skipped", rollouts.num_skipped)
            manifest.notes["first_skipped"] = rollouts.first_skipped
        lines.commit(finalise)
    return Result(out=options.out, already_done=False, counts=manifest.counts)


def _manifest(options: Options, grader: Grader) -> Manifest:
    # Whether malformed rows are skipped is left out, so that a run which met one can go on past it.
    settings = {
        "grader": options.grader,
        **grader.settings,
        "format": options.format,
        "regrade": options.regrade,
    }
    return Manifest("grade", settings, inputs=[options.rollouts])


def _outcomes(lines: ResumableLines, grader: Grader) -> dict[str, Outcome]:
    """Ids that an earlier run wrote, with what came out; the grader gets to know its predictions."""
    done: dict[str, Outcome] = {}
    for number, row in enumerate(lines.rows(), 1):
        rollout = rollout_from_json(row, f"{lines.partial}:{number}")
        done[rollout.id] = _outcome(rollout)
        if rollout.prediction is not None and rollout.correct is False:
            grader.remember(rollout.prompt_id, rollout.prediction)
    return done


def _not_done(
    rollouts: Iterable[Rollout], done: dict[str, Outcome], options: Options, manifest: Manifest
) -> Iterator[Rollout]:
    for rollout in rollouts:
        outcome = done.get(rollout.id)
        if outcome is None:
            yield rollout
        else:
            _count(outcome, manifest, _task(rollout, options.regrade))


def _graded(
    rollouts: Iterator[Rollout], grader: Grader, options: Options, manifest: Manifest
) -> Iterator[dict[str, Any]]:
    """Rows in input order, holding a bounded number of rollouts."""
    while chunk := list(islice(rollouts, _ROLLOUTS_AT_ONCE)):
        for before, after in zip(chunk, grade_rollouts(chunk, grader, regrade=options.regrade), strict=True):
            _count(_outcome(after), manifest, _task(before, options.regrade))
            yield rollout_to_json(after)


def _graded_over_ray(
    rollouts: Iterable[Rollout], options: Options, manifest: Manifest, lines: ResumableLines
) -> Iterator[dict[str, Any]]:
    """Rows as the cluster finishes them; those that are not to be graded are written at once."""
    filled: set[str] = set()

    def to_do() -> Iterator[dict[str, Any]]:
        for rollout in rollouts:
            task = _task(rollout, options.regrade)
            if task is None:
                _count(_outcome(rollout), manifest, None)
                lines.append(rollout_to_json(rollout))
                continue
            if task == FILL:
                filled.add(rollout.id)
            yield rollout_to_json(rollout)

    assert options.ray is not None
    pieces = over_ray(
        to_do(),
        partial(_ray_worker, options),
        address=options.ray,
        beside=options.out,
        num_workers=options.num_workers,
    )
    for row in chain.from_iterable(rows for _, rows in pieces):
        rollout = rollout_from_json(row)
        _count(_outcome(rollout), manifest, FILL if rollout.id in filled else GRADE)
        yield row


def _ray_worker(options: Options) -> Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]:
    """Made in each of the cluster's workers."""
    grader = grader_of(replace(options, num_workers=1))

    def work(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        rollouts = [rollout_from_json(row) for row in rows]
        return map(rollout_to_json, grade_rollouts(rollouts, grader, regrade=options.regrade))

    return work


def grade_rollouts(
    rollouts: Sequence[Rollout], grader: Grader, *, regrade: bool = False
) -> Iterator[Rollout]:
    """Grade rollouts that have a reference answer and no verdict yet, or any with ``regrade``.

    Those that have a verdict and no prediction get the prediction, and keep the verdict.

    Yields:
        The rollouts in input order; those with nothing to do unchanged.
    """
    grades = grader.grade_all(
        GradingItem(final_text(rollout), rollout.answer, rollout.prompt_id, rollout.extras)
        for rollout in rollouts
        if rollout.answer is not None and _task(rollout, regrade) is not None
    )
    for rollout in rollouts:
        task = _task(rollout, regrade)
        grade = None if task is None else next(grades)
        if grade is None:
            yield rollout
        elif task == FILL:
            yield replace(rollout, prediction=grade.prediction)
        else:
            extras = {name: value for name, value in rollout.extras.items() if name != FAILURE_FIELD}
            if grade.reason.startswith((UNREAD, TIMEOUT, CRASHED)):
                extras[FAILURE_FIELD] = grade.reason
            yield replace(rollout, correct=grade.correct, prediction=grade.prediction, extras=extras)


GRADE, FILL = "grade", "fill"


def _task(rollout: Rollout, regrade: bool) -> str | None:
    """What is to be done: grade, fill in the prediction beside a verdict, or nothing."""
    if rollout.answer is None:
        return None
    if regrade or rollout.correct is None:
        return GRADE
    return FILL if rollout.prediction is None else None


Outcome = tuple[str | None, str | None]
"""``right``, ``wrong`` or nothing; and ``unread``, ``timeout``, ``crashed``, ``no_prediction``,
``only_in_thinking`` or nothing."""


def _outcome(rollout: Rollout) -> Outcome:
    verdict = None if rollout.correct is None else "right" if rollout.correct else "wrong"
    failure = str(rollout.extras.get(FAILURE_FIELD, "")).partition(":")[0] or None
    if failure is None and rollout.prediction is None:
        from stepcredit.grading.extraction import stated_answer

        text = final_text(rollout)
        thought = text[: thinking_end(text)]
        failure = "no_prediction" if stated_answer(thought) is None else "only_in_thinking"
    return verdict, failure


def _count(outcome: Outcome, manifest: Manifest, task: str | None) -> None:
    verdict, remark = outcome
    manifest.count("rollouts")
    if verdict is not None:
        manifest.count(verdict)
    if task != GRADE:
        manifest.count("without_answer" if verdict is None else "kept")
        if task == FILL and remark not in ("no_prediction", "only_in_thinking"):
            manifest.count("filled")
        return
    manifest.count("graded")
    if remark == "only_in_thinking":
        manifest.count("no_prediction")
    if remark is not None:
        manifest.count(remark)


def _check_not_empty(options: Options, manifest: Manifest, lines: ResumableLines) -> None:
    """Refuse to write a file in which nothing has a verdict."""
    if manifest.counts.get("right", 0) + manifest.counts.get("wrong", 0):
        return
    lines.discard()
    if not manifest.counts.get("rollouts"):
        raise DataError("there are no rollouts in it", where=options.rollouts, hint="check the file")
    raise DataError(
        "no rollout has a reference answer, so nothing can be graded",
        where=options.rollouts,
        hint="give each row its 'answer'",
    )

"""Graded responses, problem by problem, joined by id with what scorers say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepcredit.data import read_rollouts
from stepcredit.data.prompt_ids import one_prompt_each
from stepcredit.errors import DataError
from stepcredit.evaluation.score_columns import REWARD, ScoreColumns, lacks_scores, read_many_score_columns
from stepcredit.runs import hash_bytes
from stepcredit.stats import NO_ANSWER, response_mask
from stepcredit.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Graded responses; arrays hold one problem per row, padded at the end.

    Attributes:
        problem_ids: In the order of the file.
        responses: Of each problem, in the order of the file.
        num_responses: Of each problem, at least 1.
        valid: True where an entry is a response and no padding.
        correct: Whether the final answer is right; false pads.
        answers: Group of equal predictions, from 0 within each problem; -1 for none, and pads.
        has_answers: Whether any response has a prediction, so that voting is possible.
        num_distinct: Different response texts of each problem.
    """

    problem_ids: tuple[str, ...]
    num_problems: int
    responses: tuple[tuple[Rollout, ...], ...]
    num_responses: NDArray[np.int64]
    valid: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    answers: NDArray[np.int64]
    has_answers: bool
    num_distinct: NDArray[np.int64]

    def of_responses(self, measure: Iterable[Iterable[float]]) -> NDArray[np.float64]:
        """A padded array from one number per response, zeros as padding."""
        values = np.zeros(self.correct.shape)
        for row, numbers in zip(values, measure, strict=True):
            listed = list(numbers)
            row[: len(listed)] = listed
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What one scorer says of the responses of :class:`Samples`.

    Attributes:
        rows: Row in ``columns`` of each response, shape (problems, responses); 0 pads.
        scores: Aggregate name, or ``reward``, to scores of shape (problems, responses).
        incomplete: Aggregates left out because some response lacks them, with the number of those.
    """

    name: str
    columns: ScoreColumns
    rows: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    incomplete: Mapping[str, int]

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Scored tokens of each response."""
        return np.asarray(self.columns.num_tokens[self.rows])

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """Steps of each response."""
        return np.asarray(np.diff(self.columns.step_offsets)[self.rows])


@dataclass(frozen=True, slots=True)
class Joined:
    """Samples, scorers in the order given, and what was left out on the way (reason to count)."""

    samples: Samples
    scorers: tuple[Scored, ...]
    excluded: Mapping[str, int] = field(default_factory=dict)


def read_joined(graded: Path, scores: Mapping[str, Path], *, skip_invalid: bool = False) -> Joined:
    """Read graded rollouts and score files, and join them.

    Args:
        skip_invalid: Leave out, and count, what cannot be used, instead of raising.

    Raises:
        DataError: Something cannot be read, or scores and rollouts do not belong together.
    """
    rollouts = read_rollouts(graded, skip_invalid=skip_invalid)
    # Large score files are read by other processes, meanwhile the rollouts here.
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_many_score_columns, list(scores.values()), skip_invalid=skip_invalid)
        responses = [without_bulk(rollout) for rollout in rollouts]
        columns = reading.result()
    joined = join(
        responses, dict(zip(scores, columns, strict=True)), source=str(graded), skip_invalid=skip_invalid
    )
    if not rollouts.num_skipped:
        return joined
    return dataclasses.replace(joined, excluded={**joined.excluded, "invalid rollouts": rollouts.num_skipped})


def join(
    rollouts: Iterable[Rollout],
    scores: Mapping[str, ScoreColumns],
    *,
    source: str = "rollouts",
    skip_invalid: bool = False,
) -> Joined:
    """Join graded rollouts with scores by id.

    Rollouts that are not graded are left out and counted.

    Args:
        rollouts: With unique ids.
        source: Where the rollouts are from; named in errors.
        skip_invalid: Leave out, and count, responses that some scorer does not score, instead of raising.

    Raises:
        DataError: Nothing is graded; or scores and rollouts do not belong together.
    """
    excluded: dict[str, int] = {}
    graded, ungraded_ids = [], set()
    for rollout in rollouts:
        if rollout.correct is None:
            ungraded_ids.add(rollout.id)
        else:
            graded.append(without_bulk(rollout))
    if not graded:
        raise DataError("no response is graded", where=source, hint="grade them first: stepcredit grade")
    if ungraded_ids:
        excluded["rollouts that are not graded"] = len(ungraded_ids)
    places = {}
    for name, columns in scores.items():
        places[name] = {identifier: row for row, identifier in enumerate(columns.ids)}
        _check_match(name, columns, places[name], graded, ungraded_ids, source, skip_invalid, excluded)
    kept = [rollout for rollout in graded if all(rollout.id in rows for rows in places.values())]
    if len(kept) < len(graded):
        excluded["rollouts without a score"] = len(graded) - len(kept)
    samples = group(kept)
    scorers = tuple(scored(name, columns, places[name], samples) for name, columns in scores.items())
    return Joined(samples, scorers, excluded)


def without_bulk(rollout: Rollout) -> Rollout:
    """The rollout without what no evaluation needs but memory feels."""
    if rollout.response_token_ids is None and not rollout.extras and rollout.sampling is None:
        return rollout
    return dataclasses.replace(rollout, response_token_ids=None, tokenizer=None, sampling=None, extras={})


def _check_match(
    name: str,
    columns: ScoreColumns,
    rows: Mapping[str, int],
    graded: Sequence[Rollout],
    ungraded_ids: set[str],
    source: str,
    skip_invalid: bool,
    excluded: dict[str, int],
) -> None:
    missing = [rollout.id for rollout in graded if rollout.id not in rows]
    if len(missing) == len(graded):
        raise DataError(
            f"none of its ids is in {source}", where=columns.source, hint="pass the scores of these rollouts"
        )
    if missing and not skip_invalid:
        raise lacks_scores(missing, source, columns)
    for rollout in graded:
        row = rows.get(rollout.id)
        if row is not None and columns.prompt_ids[row] != rollout.prompt_id:
            raise DataError(
                f"rollout {rollout.id!r} is of prompt {columns.prompt_ids[row]!r}, not {rollout.prompt_id!r}",
                where=columns.source,
                hint="pass the scores of these rollouts",
            )
        if row is not None:
            columns.check_text(row, rollout)
    known = {rollout.id for rollout in graded} | ungraded_ids
    surplus = sum(identifier not in known for identifier in columns.ids)
    if surplus:
        excluded[f"scores of {name} for rollouts that are not there"] = surplus
    if columns.num_skipped:
        excluded[f"invalid rows of {name}"] = columns.num_skipped


def group(rollouts: Sequence[Rollout]) -> Samples:
    """Group graded rollouts by prompt, keeping the order of the file.

    A prediction of blanks only is none.

    Raises:
        DataError: There are none, or two with one prompt id have different prompts.
    """
    if not rollouts:
        raise DataError("no graded response is left to evaluate")
    problems: dict[str, list[Rollout]] = {}
    for rollout in one_prompt_each(rollouts):
        problems.setdefault(rollout.prompt_id, []).append(rollout)
    sizes = np.array([len(responses) for responses in problems.values()])
    correct = np.zeros((len(problems), sizes.max()), dtype=bool)
    answers = np.full(correct.shape, NO_ANSWER, dtype=np.int64)
    for row, responses in enumerate(problems.values()):
        correct[row, : len(responses)] = [bool(rollout.correct) for rollout in responses]
        names: dict[str, int] = {}
        for column, rollout in enumerate(responses):
            if rollout.vote is not None:
                answers[row, column] = names.setdefault(rollout.vote, len(names))
    return Samples(
        problem_ids=tuple(problems),
        num_problems=len(problems),
        responses=tuple(tuple(responses) for responses in problems.values()),
        num_responses=sizes,
        valid=response_mask(sizes, correct.shape[1]),
        correct=correct,
        answers=answers,
        has_answers=bool((answers != NO_ANSWER).any()),
        num_distinct=np.array(
            [len({rollout.response for rollout in responses}) for responses in problems.values()]
        ),
    )


def scored(name: str, columns: ScoreColumns, places: Mapping[str, int], samples: Samples) -> Scored:
    """The scores of all responses.

    Args:
        places: Id of each response to its row in ``columns``.
    """
    rows = np.zeros(samples.correct.shape, dtype=np.int64)
    for row, responses in zip(rows, samples.responses, strict=True):
        row[: len(responses)] = [places[rollout.id] for rollout in responses]
    valid = samples.valid
    scores, incomplete = {}, {}
    for aggregate, column in columns.scores.items():
        values = np.where(valid, column[rows], 0.0)
        lacking = int(np.isnan(values).sum())
        if lacking and aggregate != REWARD:
            incomplete[aggregate] = lacking
        else:
            scores[aggregate] = values
    return Scored(name=name, columns=columns, rows=rows, scores=scores, incomplete=incomplete)


def split_by_problem(samples: Samples, share: float) -> NDArray[np.bool_]:
    """Which problems are held out for choices: a fixed share by the hash of the problem's id.

    The same problem falls on the same side in every file and run.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"the share must be between 0 and 1; got {share}")
    return np.array([in_share(name, share) for name in samples.problem_ids])


def in_share(name: str, share: float) -> bool:
    """Whether the hash of a problem's id falls into the first ``share`` of all hashes."""
    # 13 hexadecimal digits are 52 bits: what a float holds exactly.
    return int(hash_bytes(name.encode()).removeprefix("sha256:")[:13], 16) / 16**13 < share


def select(joined: Joined, problems: NDArray[np.bool_]) -> Joined:
    """The part of the problems where ``problems`` is true."""
    kept = [joined.samples.responses[place] for place in np.flatnonzero(problems)]
    part = group([rollout for responses in kept for rollout in responses])
    width = part.correct.shape[1]
    scorers = tuple(
        dataclasses.replace(
            scorer,
            rows=scorer.rows[problems, :width],
            scores={name: values[problems, :width] for name, values in scorer.scores.items()},
        )
        for scorer in joined.scorers
    )
    return Joined(part, scorers, joined.excluded)

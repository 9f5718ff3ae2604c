"""Best-of-n, votes and areas from files of responses and scores, against enumeration in plain Python."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from tests.evaluation import builders

from stepcredit.data import rollout_to_json, score_to_json, write_rows
from stepcredit.evaluation.score_columns import read_score_columns
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.task import draw_problems
from stepcredit.lab.tutor import WEAK
from stepcredit.types import ResponseScore, Rollout
from stepcredit_study.frame.measuring import (
    TestBed,
    choose_aggregate,
    development_accuracies,
    minimum_is_last,
    share_right,
    sightings,
)
from stepcredit_study.frame.world import Responses

NUM_RESPONSES = 6


def rollout(prompt: int, index: int, text: str) -> Rollout:
    return Rollout(
        id=f"{prompt}/{index}",
        prompt_id=str(prompt),
        prompt=f"problem {prompt}",
        response=f"step\nanswer {text}",
        index=index,
        prediction=text,
        correct=text == "right",
    )


def score(of: Rollout, low: float, last: float) -> ResponseScore:
    aggregates = {"min": min(low, last), "sum": low + last, "mean": (low + last) / 2, "last": last}
    scored = builders.score(of, (low, last), ("step\n", of.response.removeprefix("step\n")))
    return replace(scored, aggregates=aggregates)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Responses, Path, dict[str, ResponseScore], list[Rollout]]:
    """Three problems, six responses each, several of them equal; only distinct ones are scored."""
    draw = random.Random(3)
    rows = [
        rollout(prompt, index, draw.choice(["right", "wrong", "other", "last"]))
        for prompt in range(3)
        for index in range(NUM_RESPONSES)
    ]
    distinct = list({(row.prompt_id, row.response): row for row in reversed(rows)}.values())[::-1]
    scores = {rollout.id: score(rollout, draw.gauss(0, 1), draw.gauss(0, 1)) for rollout in distinct}
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rows))
    write_rows(tmp_path / "distinct.jsonl", map(rollout_to_json, distinct))
    write_rows(tmp_path / "scores.jsonl", map(score_to_json, scores.values()))
    responses = Responses(tmp_path / "graded.jsonl", tmp_path / "distinct.jsonl")
    by_text = {
        (rollout.prompt_id, rollout.response): scores[rollout.id]
        for rollout in distinct
        if rollout.id in scores
    }
    of_all = {rollout.id: by_text[rollout.prompt_id, rollout.response] for rollout in rows}
    return responses, tmp_path / "scores.jsonl", of_all, rows


def problems(rows: list[Rollout]) -> list[list[Rollout]]:
    groups: dict[str, list[Rollout]] = defaultdict(list)
    for row in rows:
        groups[row.prompt_id].append(row)
    return list(groups.values())


@pytest.mark.parametrize("aggregate", ["min", "sum", "last"])
def test_best_of_n_is_the_mean_over_all_subsets(files: tuple, aggregate: str) -> None:  # type: ignore[type-arg]
    responses, path, scores, rows = files
    accuracies = TestBed(responses, (1, 2, 4, 64)).accuracy(path, aggregate)
    assert list(accuracies) == [1, 2, 4], "of six responses no 64 can be drawn"
    for n, accuracy in accuracies.items():
        expected = []
        for group in problems(rows):
            for subset in combinations(group, n):
                values = [scores[place.id].aggregates[aggregate] for place in subset]
                best = [place for place, value in zip(subset, values, strict=True) if value == max(values)]
                expected.append(math.fsum(bool(place.correct) for place in best) / len(best))
        assert accuracy == pytest.approx(math.fsum(expected) / len(expected), abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_votes_are_the_mean_over_all_subsets(files: tuple, weighted: bool) -> None:  # type: ignore[type-arg]
    responses, path, scores, rows = files
    bed = TestBed(responses, (1, 2, 4))
    accuracies = bed.weighted_vote(path, "min", temperature=0.7) if weighted else bed.majority()
    for n, accuracy in accuracies.items():
        expected = []
        for group in problems(rows):
            for subset in combinations(group, n):
                votes: dict[str, float] = defaultdict(float)
                for place in subset:
                    exponent = scores[place.id].aggregates["min"] / 0.7
                    votes[str(place.prediction)] += 1 / (1 + math.exp(-exponent)) if weighted else 1.0
                most = max(votes.values())
                winners = [answer for answer, vote in votes.items() if math.isclose(vote, most)]
                expected.append(("right" in winners) / len(winners))
        assert accuracy == pytest.approx(math.fsum(expected) / len(expected), abs=1e-9)


def test_the_oracle_needs_one_right_response(files: tuple) -> None:  # type: ignore[type-arg]
    responses, _, _, rows = files
    bed = TestBed(responses, (1, 4))
    for n in (1, 3, 6):
        expected = [
            any(place.correct for place in subset)
            for group in problems(rows)
            for subset in combinations(group, n)
        ]
        assert bed.pass_at(n) == pytest.approx(sum(expected) / len(expected))


def test_the_outcome_auc_is_of_distinct_responses(files: tuple) -> None:  # type: ignore[type-arg]
    responses, path, scores, _ = files
    bed = TestBed(responses, (1,))
    right = [scores[rollout.id].reward for rollout in bed.distinct if rollout.correct]
    wrong = [scores[rollout.id].reward for rollout in bed.distinct if not rollout.correct]
    wins = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
    assert bed.outcome_auc(path) == pytest.approx(sum(wins) / len(wins))


def test_the_share_of_lowest_last_steps_splits_ties_and_leaves_out_single_steps(tmp_path: Path) -> None:
    rows = [rollout(0, index, f"{index}") for index in range(4)]
    scores = [score(rows[0], 1, 0), score(rows[1], 0, 1), score(rows[2], 1, 1)]
    single = builders.score(rows[3], (0.0,), (rows[3].response,))
    write_rows(tmp_path / "scores.jsonl", map(score_to_json, [*scores, single]))
    share = minimum_is_last(read_score_columns(tmp_path / "scores.jsonl"))
    assert share == pytest.approx((1 + 0 + 0.5) / 3)


def test_the_aggregate_that_picks_best_is_chosen_and_the_first_of_equals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step's reward knows the answer, the lowest one's is the other way round."""
    rows = [rollout(0, index, "right" if index < 2 else f"wrong {index}") for index in range(5)]
    rows += [rollout(1, index, "right" if index < 1 else f"wrong {index}") for index in range(4)]
    rows = list({(row.prompt_id, row.response): row for row in rows}.values())
    rows += [rollout(prompt, 9, "another") for prompt in range(2)]
    scores = [
        score(rollout, -2.0 if rollout.correct else -1.0, float(bool(rollout.correct))) for rollout in rows
    ]
    write_rows(tmp_path / "dev.jsonl", map(rollout_to_json, rows))
    write_rows(tmp_path / "scores.jsonl", map(score_to_json, scores))
    paths = tmp_path / "dev.jsonl", tmp_path / "scores.jsonl"
    assert choose_aggregate(*paths) == "last"
    # Their sum is the same for all, so it does not know the answer, nor does the mean.
    monkeypatch.setattr("stepcredit_study.frame.measuring.AGGREGATES", ("min", "sum", "mean"))
    assert choose_aggregate(*paths) == "sum"
    monkeypatch.setattr("stepcredit_study.frame.measuring.AGGREGATES", ("unknown",))
    assert choose_aggregate(*paths) == "reward"


def test_first_wrong_steps_are_told_from_right_ones_before_any_error(tmp_path: Path) -> None:
    """Rewards that know the truth give an area of 1, their opposites 0."""
    problem_set = draw_problems("test", seed=0, count=30)
    texts = WEAK.write(problem_set, seed=[0, 0])
    rows = []
    for number, (problem, text) in enumerate(zip(problem_set, texts, strict=True)):
        rows.append(
            Rollout(
                id=str(number),
                prompt_id=str(number),
                prompt=problem.text,
                response=text,
                answer=problem.answer,
                correct=text.rpartition("#")[2].strip() == problem.answer,
            )
        )
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rows))
    bed = TestBed(Responses(tmp_path / "graded.jsonl", tmp_path / "graded.jsonl"), (1,))
    for sign, expected in ((1.0, 1.0), (-1.0, 0.0)):
        scores = []
        for row in rows:
            rewards = [sign * label.label for label in label_steps(row)]
            scores.append(builders.score(row, rewards, row.response.splitlines(keepends=True)))
        write_rows(tmp_path / f"{sign}.jsonl", map(score_to_json, scores))
        assert bed.step_auc(tmp_path / f"{sign}.jsonl") == expected


def test_sightings_count_how_often_a_fact_is_written(tmp_path: Path) -> None:
    responses = ["7*8=6\n6+5=1\n#1", "7*8=5\n5+5=0\n#0", "7*8=6\n"]
    rollouts = [Rollout(id=str(i), prompt_id="p", prompt="?", response=r) for i, r in enumerate(responses)]
    path = tmp_path / "graded.jsonl"
    write_rows(path, map(rollout_to_json, rollouts))
    assert sightings(path) == pytest.approx(5 / 3)  # 7*8 three times, 6+5 and 5+5 once


def test_an_aggregate_is_chosen_from_as_many_responses_as_there_are(tmp_path: Path) -> None:
    rows = [rollout(0, 0, "right"), rollout(0, 1, "wrong")]
    scores = [score(rows[0], low=-1.0, last=5.0), score(rows[1], low=1.0, last=2.0)]
    graded, path = tmp_path / "graded.jsonl", tmp_path / "scores.jsonl"
    write_rows(graded, map(rollout_to_json, rows))
    write_rows(path, map(score_to_json, scores))
    assert development_accuracies(graded, path) == {"min": 0.0, "mean": 1.0, "sum": 1.0, "last": 1.0}
    assert choose_aggregate(graded, path) == "mean"
    assert share_right(graded) == 0.5


def test_where_the_lowest_step_is_the_first_wrong_one(tmp_path: Path) -> None:
    """One response finds it, one does not, one is right and does not count."""
    responses = {"found": "1+5=7\n7+2=9\n#9", "missed": "1+5=7\n7+2=9\n#9", "right": "1+5=6\n6+2=8\n#8"}
    rows = [
        Rollout(
            id=name, prompt_id=name, prompt="1+5+2=", response=response, answer="8", correct=name == "right"
        )
        for name, response in responses.items()
    ]
    rewards = {"found": (-1.0, 0.0, 0.0), "missed": (0.0, -1.0, 0.0), "right": (-1.0, 0.0, 0.0)}
    scores = [builders.score(row, rewards[row.id], row.response.splitlines(keepends=True)) for row in rows]
    graded, path = tmp_path / "graded.jsonl", tmp_path / "scores.jsonl"
    write_rows(graded, map(rollout_to_json, rows))
    write_rows(path, map(score_to_json, scores))
    assert TestBed(Responses(graded, graded), (1,)).lowest_is_first_wrong(path) == 0.5

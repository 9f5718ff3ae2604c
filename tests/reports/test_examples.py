from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.data import rollout_to_json, score_to_json, write_rows
from stepcredit.errors import DataError
from stepcredit.reports.examples import example_of, first_of_each_problem, join_examples, prompt_text
from stepcredit.types import ResponseScore, Rollout, StepLabel, StepScore


def scored(
    steps: list[str], *, id: str = "r", labels: list[float] | None = None
) -> tuple[Rollout, ResponseScore]:
    """A rollout whose step k has reward -k, and its score."""
    ends = [len("".join(steps[: index + 1])) for index in range(len(steps))]
    rows = [
        StepScore(index, text, end - len(text), end, -float(index), 0.0)
        for index, (text, end) in enumerate(zip(steps, ends, strict=True))
    ]
    step_labels = None
    if labels is not None:
        step_labels = tuple(StepLabel(end, label) for end, label in zip(ends, labels, strict=True))
    rollout = Rollout(
        id=id, prompt_id="p", prompt="1+1=", response="".join(steps), answer="2", step_labels=step_labels
    )
    score = ResponseScore(
        id=id, prompt_id="p", reward=-1.0, steps=tuple(rows), aggregates={}, num_tokens=3, scorer="s"
    )
    return rollout, score


def with_tokens(
    score: ResponseScore, ends: tuple[int, ...], rewards: tuple[float, ...], text: str | None = None
) -> ResponseScore:
    return ResponseScore(
        id=score.id,
        prompt_id=score.prompt_id,
        reward=score.reward,
        steps=score.steps,
        aggregates={},
        num_tokens=len(ends),
        scorer="s",
        scored_text=text,
        token_rewards=rewards,
        token_ends=ends,
    )


def test_the_first_label_under_one_half_names_the_first_wrong_step() -> None:
    assert example_of(*scored(["a\n", "b\n", "c"], labels=[1, 0.4, 0])).first_wrong_step == 1
    assert example_of(*scored(["a\n", "b\n", "c"], labels=[1, 1, 0.5])).first_wrong_step is None
    assert example_of(*scored(["a\n", "b"])).first_wrong_step is None


def test_tokens_are_cut_at_their_ends() -> None:
    rollout, score = scored(["ab", "ç😀"])
    example = example_of(rollout, with_tokens(score, (1, 3, 4, 4), (0.1, 0.2, 0.3, 0.4)))
    assert [(token.text, token.reward) for token in example.tokens] == [
        ("a", 0.1),
        ("bç", 0.2),
        ("😀", 0.3),
        ("", 0.4),
    ]


@pytest.mark.parametrize("ends", [(2, 1), (1, 9), (1,)])
def test_token_ends_that_do_not_fit_are_an_error(ends: tuple[int, ...]) -> None:
    rollout, score = scored(["ab"])
    with pytest.raises(DataError, match="token"):
        example_of(rollout, with_tokens(score, ends, (0.0, 0.0)))


def test_labels_of_the_response_are_not_read_into_a_rewritten_text() -> None:
    rollout, score = scored(["a\n", "b"], labels=[1, 0])
    rewritten = with_tokens(score, (1,), (0.0,), text="Step 1: a\n\nStep 2: b")
    assert example_of(rollout, rewritten).first_wrong_step is None


def test_scores_find_their_rollouts_by_id_in_the_order_of_the_scores() -> None:
    pairs = [scored(["x"], id=id, labels=[label]) for id, label in (("a", 0), ("b", 1), ("c", 1))]
    rollouts = [rollout for rollout, _ in pairs]
    examples = join_examples(rollouts, [pairs[2][1], pairs[0][1]])
    assert [(example.id, example.first_wrong_step) for example in examples] == [("c", None), ("a", 0)]
    with pytest.raises(DataError, match="'c'"):
        join_examples(rollouts[:2], [pairs[2][1]])


def test_the_first_responses_are_shown_whatever_their_scores(tmp_path: Path) -> None:
    verdicts_of = {"a": (True, False), "b": (False, False), "c": (False,), "d": (True,), "e": (True,)}
    graded, scores = [], []
    for prompt, verdicts in verdicts_of.items():
        for number, correct in enumerate(verdicts):
            rollout, score = scored(["1+1=2\n", "#2"], id=f"{prompt}/{number}")
            graded.append(replace(rollout, prompt_id=prompt, correct=correct))
            scores.append(replace(score, prompt_id=prompt))
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, graded))
    write_rows(tmp_path / "scores.jsonl", map(score_to_json, scores))
    examples = first_of_each_problem(
        tmp_path / "graded.jsonl", tmp_path / "scores.jsonl", num_wrong=1, num_right=2
    )
    # One per problem, wrong ones first; b takes the only place of the wrong ones.
    assert [example.id for example in examples] == ["b/0", "a/0", "d/0"]


def test_a_score_of_another_rollout_is_refused() -> None:
    with pytest.raises(DataError, match="does not belong"):
        example_of(scored(["x"], id="a")[0], scored(["x"], id="b")[1])


def test_a_conversation_names_its_roles_unless_it_is_one_turn() -> None:
    assert prompt_text("2+2") == "2+2"
    assert prompt_text([{"role": "user", "content": "2+2"}]) == "2+2"
    turns = prompt_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2"}])
    assert turns == "system: Be brief.\n\nuser: 2+2"

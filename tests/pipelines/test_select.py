from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stepcredit.cli import main
from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import DataError, UserError
from stepcredit.labelling.monte_carlo import FIELD
from stepcredit.pipelines import select
from stepcredit.types import Message, Rollout


def rollouts(num_prompts: int = 20, num_responses: int = 4, policy: str = "") -> list[Rollout]:
    """Prompt i has its first i % (n + 1) responses right."""
    return [
        Rollout(
            id=f"{prompt}/{index}",
            prompt_id=f"p{prompt}",
            prompt=f"{prompt}*7+{prompt + 3}-{prompt % 9}=",
            response=f"{policy}{prompt} answers {index}",
            index=index,
            correct=index < prompt % (num_responses + 1),
        )
        for prompt in range(num_prompts)
        for index in range(num_responses)
    ]


def write(path: Path, rows: Iterable[Rollout]) -> Path:
    write_rows(path, map(rollout_to_json, rows))
    return path


def kept(tmp_path: Path, *files: Path, **options: Any) -> list[Rollout]:
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}.jsonl"
    select.run(select.Options(rollouts=files, out=out, **options))
    return list(read_rollouts(out))


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    return write(tmp_path / "graded.jsonl", rollouts())


def test_without_a_wish_everything_is_kept_as_it_was(graded: Path, tmp_path: Path) -> None:
    assert kept(tmp_path, graded) == list(read_rollouts(graded))


def test_a_smaller_share_of_the_prompts_lies_in_a_larger_one(graded: Path, tmp_path: Path) -> None:
    parts = [
        [rollout.id for rollout in kept(tmp_path, graded, prompts=share, seed=3)]
        for share in (0.25, 0.5, 0.75, 1)
    ]
    assert [len(part) for part in parts] == [20, 40, 60, 80]
    for smaller, larger in pairwise(parts):
        assert set(smaller) < set(larger)
        assert smaller == [name for name in larger if name in set(smaller)], "the order of the file stays"
    other = [rollout.id for rollout in kept(tmp_path, graded, prompts=0.25, seed=4)]
    assert set(other) != set(parts[0])


def test_a_share_of_a_part_of_the_prompts_is_what_the_whole_would_give(tmp_path: Path) -> None:
    """Where a prompt stands depends on the seed and itself, not on the others."""
    whole = write(tmp_path / "whole.jsonl", rollouts())
    part = write(tmp_path / "part.jsonl", [rollout for rollout in rollouts() if rollout.prompt_id != "p0"])
    of_whole = {rollout.prompt_id for rollout in kept(tmp_path, whole, prompts=0.5)} - {"p0"}
    of_part = {rollout.prompt_id for rollout in kept(tmp_path, part, prompts=0.5)}
    assert len(of_whole ^ of_part) <= 1


def test_the_first_responses_are_kept_however_the_file_is_sorted(tmp_path: Path) -> None:
    graded = write(tmp_path / "graded.jsonl", reversed(rollouts()))
    part = kept(tmp_path, graded, responses=2)
    assert {(rollout.prompt_id, rollout.index) for rollout in part} == {
        (f"p{i}", j) for i in range(20) for j in (0, 1)
    }


def test_of_equal_responses_to_a_prompt_the_first_stays(tmp_path: Path) -> None:
    rows = [replace(rollout, response=f"always {rollout.index // 2}") for rollout in rollouts(2)]
    part = kept(tmp_path, write(tmp_path / "graded.jsonl", rows), distinct=True)
    assert [rollout.id for rollout in part] == ["0/0", "0/2", "1/0", "1/2"]


def test_equal_responses_of_two_files_are_one(graded: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [replace(row, id=f"other {row.id}") for row in rollouts()])
    assert kept(tmp_path, graded, other, distinct=True) == kept(tmp_path, graded)


def test_turns_that_call_other_tools_are_not_equal(tmp_path: Path) -> None:
    def turns(sum_: str) -> tuple[Message, ...]:
        call = {"type": "function", "function": {"name": "add", "arguments": {"sum": sum_}}}
        asks: Message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return asks, {"role": "tool", "content": "4"}, {"role": "assistant", "content": "4"}

    sums = ("2+2", "1+3", "2+2", "4+0")
    rows = [
        replace(row, response="4", turns=turns(sum_)) for row, sum_ in zip(rollouts(1), sums, strict=True)
    ]
    part = kept(tmp_path, write(tmp_path / "graded.jsonl", rows), distinct=True)
    assert [rollout.id for rollout in part] == ["0/0", "0/1", "0/3"]


def test_files_that_number_other_problems_alike_are_not_joined(graded: Path, tmp_path: Path) -> None:
    """Their responses would be paired, and vote, as answers to one problem."""
    rows = [replace(row, id=f"other {row.id}", prompt=f"other {row.prompt}") for row in rollouts()]
    other = write(tmp_path / "other.jsonl", rows)
    with pytest.raises(DataError, match=r"other\.jsonl: 'other 0/0' has another prompt.*prompt id 'p0'"):
        kept(tmp_path, graded, other)


def test_equal_responses_count_among_those_that_are_taken(tmp_path: Path) -> None:
    """The first two of a policy are its first two draws, equal or not."""
    rows = [replace(rollout, response=f"always {rollout.index // 2}") for rollout in rollouts(1)]
    part = kept(tmp_path, write(tmp_path / "graded.jsonl", rows), distinct=True, responses=2)
    assert [rollout.id for rollout in part] == ["0/0"]


@pytest.mark.parametrize(("ratio", "right", "wrong"), [("1:1", 10, 10), ("3:1", 15, 5), ("1:3", 5, 15)])
def test_one_response_a_prompt_in_a_ratio(tmp_path: Path, ratio: str, right: int, wrong: int) -> None:
    rows = [replace(rollout, correct=rollout.index < 2) for rollout in rollouts()]
    part = kept(tmp_path, write(tmp_path / "graded.jsonl", rows), one_response=ratio)
    assert len({rollout.prompt_id for rollout in part}) == len(part) == 20
    assert sum(rollout.correct is True for rollout in part) == right
    assert sum(rollout.correct is False for rollout in part) == wrong


def test_where_prompts_cannot_give_the_ratio_the_frequent_kind_is_cut(tmp_path: Path) -> None:
    rows = [replace(rollout, correct=rollout.prompt_id in ("p1", "p2")) for rollout in rollouts()]
    part = kept(tmp_path, write(tmp_path / "graded.jsonl", rows), one_response="1:3")
    assert sum(rollout.correct is True for rollout in part) == 2
    assert sum(rollout.correct is False for rollout in part) == 6


@pytest.mark.parametrize(("ratio", "scarce"), [("1:10", True), ("10:1", False)])
@pytest.mark.parametrize("only", [10, 40])
def test_the_rare_label_does_not_tell_how_hard_its_prompt_is(
    tmp_path: Path, ratio: str, scarce: bool, only: int
) -> None:
    """Prompts with the rare kind only are among its prompts as often as among all that have it."""
    count = 1000
    share = {"mixed": 1 - 2 * only / 100, "only": only / 100}

    def correct(prompt: int, index: int) -> bool:
        if prompt % 100 < only:
            return scarce
        return not scarce if prompt % 100 < 2 * only else index % 2 == 0

    rows = [
        replace(rollout, correct=correct(int(rollout.prompt_id[1:]), rollout.index))
        for rollout in rollouts(count, 2)
    ]
    part = kept(tmp_path, write(tmp_path / "graded.jsonl", rows), one_response=ratio)
    rare = [rollout for rollout in part if rollout.correct is scarce]
    of_one_kind = sum(int(rollout.prompt_id[1:]) % 100 < only for rollout in rare) / len(rare)
    assert of_one_kind == pytest.approx(share["only"] / (share["only"] + share["mixed"]), abs=0.15)
    assert len({rollout.prompt_id for rollout in part}) == len(part)
    assert len(part) - len(rare) == 10 * len(rare)
    # No more of them fit: each takes ten others, and a prompt that has both kinds cannot give both.
    assert 11 * (len(rare) + 1) > count * (share["mixed"] + share["only"])
    again = kept(tmp_path, tmp_path / "graded.jsonl", one_response=ratio)
    assert part == again


@pytest.mark.parametrize(("ratio", "correct"), [("1:0", True), ("0:1", False)])
def test_a_ratio_with_nothing_on_one_side_keeps_one_kind(
    graded: Path, tmp_path: Path, ratio: str, correct: bool
) -> None:
    part = kept(tmp_path, graded, one_response=ratio)
    assert {rollout.correct for rollout in part} == {correct}
    assert len(part) == 16  # four of the twenty prompts have no response of the kind


def test_near_duplicates_among_the_prompts_go(tmp_path: Path) -> None:
    """Pieces of three: abcdef has abc bcd cde def; abcdeX shares three of the five that both have."""
    texts = {"a": "abcdef", "b": "abcdeX", "c": "uvwxyz", "d": "abcdef"}
    rows = [Rollout(id=name, prompt_id=name, prompt=text, response="r") for name, text in texts.items()]
    graded = write(tmp_path / "graded.jsonl", rows)
    assert [rollout.id for rollout in kept(tmp_path, graded, similar_prompts=0.6)] == ["a", "c"]
    assert [rollout.id for rollout in kept(tmp_path, graded, similar_prompts=0.61)] == ["a", "b", "c"]


def test_files_whose_ids_collide_are_joined_prompt_by_prompt(tmp_path: Path) -> None:
    first = write(tmp_path / "first.jsonl", rollouts(2))
    second = write(tmp_path / "second.jsonl", rollouts(3, policy="other "))
    part = kept(tmp_path, first, second, responses=1)
    assert [rollout.id for rollout in part] == ["0/0", "0/0/1", "1/0", "1/0/1", "2/0"]
    assert [rollout.prompt_id for rollout in part] == ["p0", "p0", "p1", "p1", "p2"]


def test_what_was_kept_is_counted_and_not_done_twice(graded: Path, tmp_path: Path) -> None:
    options = select.Options(rollouts=(graded,), out=tmp_path / "out.jsonl", prompts=0.5, responses=3)
    result = select.run(options)
    assert result.counts == {
        "responses read": 80,
        "prompts read": 20,
        "responses kept": 30,
        "prompts kept": 10,
    }
    again = select.run(options)
    assert again.already_done
    assert "30 of 80 responses, 10 of 20 prompts" in again.to_text()
    with pytest.raises(UserError, match="--overwrite"):
        select.run(replace(options, responses=2))


def test_another_kind_of_monte_carlo_labels_is_taken(tmp_path: Path) -> None:
    labels = {"end": [3, 7], "soft": [0.75, 0.25], "hard": [1.0, 1.0]}
    rows = [replace(rollout, extras={FIELD: labels}) for rollout in rollouts(1, 1)]
    graded = write(tmp_path / "graded.jsonl", rows)
    (rollout,) = kept(tmp_path, graded, step_labels="hard")
    assert [(label.end, label.label) for label in rollout.step_labels or ()] == [(3, 1.0), (7, 1.0)]
    with pytest.raises(DataError, match="no log-mean-exp labels"):
        kept(tmp_path, graded, step_labels="log-mean-exp")
    with pytest.raises(DataError, match="no end labels"):
        kept(tmp_path, graded, step_labels="end")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompts", "0"], "--prompts: must lie in (0, 1]"),
        (["--prompts", "1.5"], "--prompts: must lie in (0, 1]"),
        (["--responses", "0"], "--responses: must be at least 1"),
        (["--similar-prompts", "2"], "--similar-prompts: must lie in (0, 1]"),
        (["--one-response", "half"], "--one-response: 'half' is not a ratio"),
        (["--one-response", "0:0"], "--one-response: '0:0' is not a ratio"),
        (["--one-response", "²:1"], "--one-response: '²:1' is not a ratio"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    words: list[str], said: str, graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["select", str(graded), "--out", str(out), *words]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_is_named_twice_is_refused(graded: Path, tmp_path: Path) -> None:
    again = tmp_path / "." / "graded.jsonl"
    with pytest.raises(UserError, match="is named twice"):
        select.run(select.Options(rollouts=(graded, again), out=tmp_path / "out.jsonl"))


def test_a_malformed_row_is_named_or_skipped_and_counted(tmp_path: Path) -> None:
    graded = write(tmp_path / "graded.jsonl", rollouts(1))
    graded.write_text(graded.read_text() + '{"id": 3}\n')
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match=r"graded\.jsonl:5"):
        select.run(select.Options(rollouts=(graded,), out=out))
    result = select.run(select.Options(rollouts=(graded,), out=out, skip_invalid=True))
    assert (result.counts["malformed"], result.counts["responses kept"]) == (1, 4)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    ungraded = write(tmp_path / "ungraded.jsonl", [replace(rollout, correct=None) for rollout in rollouts(2)])
    with pytest.raises(DataError, match="nothing is left"):
        kept(tmp_path, ungraded, one_response="1:1")

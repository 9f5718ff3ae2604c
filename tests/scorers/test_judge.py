"""What a judge is asked, and which of its answers are believed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepcredit.errors import UserError
from stepcredit.recipes import judge_names
from stepcredit.scorers.judge import DEFAULT_JUDGE, Judge

JUDGE = Judge.read(DEFAULT_JUDGE)


def line(number: int, word: str) -> str:
    return f"Step {number}: \\boxed{{{word}}}"


def test_the_question_holds_the_problem_and_every_step_as_they_are() -> None:
    system, asked = JUDGE.messages("What is {steps}?", ["\\frac{1}{2} {count}", "So {problem}."])
    assert system["role"] == "system"
    assert "[Problem]\nWhat is {steps}?\n" in str(asked["content"])
    assert "<step_1>\n\\frac{1}{2} {count}\n</step_1>\n<step_2>\nSo {problem}.\n</step_2>" in str(
        asked["content"]
    )
    assert "from Step 1 to Step 2" in str(asked["content"])


def test_verdicts_are_read_in_order_with_their_places() -> None:
    second = r"**Step 2:** $\boxed{\text{Wrong}}$"
    answer = f"2 + 2 is 4, fine.\n{line(1, 'right')}\nNo.\n{second}\n{line(3, 'correct')}"
    verdicts = JUDGE.verdicts(answer, 3)
    assert verdicts is not None
    assert [verdict.is_right for verdict in verdicts] == [True, False, True]
    assert [answer[verdict.start :].split("}")[0] for verdict in verdicts] == ["right", "Wrong", "correct"]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "All steps are right.",
        line(1, "right"),
        "\n".join([line(1, "right"), line(2, "right"), line(3, "right")]),
        "\n".join([line(1, "right"), line(1, "right")]),
        "\n".join([line(2, "right"), line(1, "right")]),
        "\n".join([line(2, "right"), line(3, "wrong")]),
        "\n".join([line(1, "right"), line(2, "unclear")]),
        f"<think>{line(1, 'right')}\n{line(2, 'right')}",
        f"<think>\n{line(1, 'right')}\n{line(2, 'right')}\n</think>\nAll is right.",
    ],
    ids=[
        *("empty", "none", "fewer", "more", "one twice", "out of order", "shifted", "another word"),
        *("cut off in thinking", "in thinking only"),
    ],
)
def test_an_answer_without_exactly_one_verdict_per_step_is_refused(answer: str) -> None:
    assert JUDGE.verdicts(answer, 2) is None


def test_thinking_is_left_out_unless_the_judge_reads_it() -> None:
    thought = f"<think>\n{line(1, 'wrong')}\n</think>\n"
    answer = f"{thought}\n{line(1, 'right')}"
    (verdict,) = JUDGE.verdicts(answer, 1) or []
    assert verdict.is_right
    assert answer[verdict.start :] == "right}"
    reader = replace(JUDGE, read_thinking=True)
    (verdict,) = reader.verdicts(thought, 1) or []
    assert not verdict.is_right


@pytest.mark.parametrize(
    ("before", "candidates", "right", "wrong"),
    [
        ("", {"right": -0.5, "wrong": -1.5}, -0.5, -1.5),
        ("{", {"{right": -0.5, "{wrong": -1.5, "wrong": -0.1}, -0.5, -1.5),
        ("", {"Correct": -0.5, "in": -1.5, "c": -9999.0}, -0.5, -1.5),
        ("", {"right}": -0.5, "w": -1.5, "unclear": -0.2, "": -0.1}, -0.5, -1.5),
        ("", {"right": -0.2}, -0.2, -math.inf),
    ],
)
def test_the_probability_is_that_of_right_words_against_wrong_ones(
    before: str, candidates: dict[str, float], right: float, wrong: float
) -> None:
    probability = JUDGE.probability(before, candidates)
    assert probability == pytest.approx(math.exp(right) / (math.exp(right) + math.exp(wrong)), abs=1e-12)


def test_candidates_that_begin_neither_or_both_say_nothing() -> None:
    assert JUDGE.probability("", {"maybe": -0.1, " ": -3.0}) is None
    alike = Judge(prompt="", step="", verdict="", right=("is right",), wrong=("is wrong",))
    assert alike.probability("", {"is": -0.1}) is None


@pytest.mark.parametrize("name", judge_names())
def test_every_judge_that_ships_can_be_read(name: str) -> None:
    judge = Judge.read(name)
    assert judge.verdicts(f"{line(1, judge.right[0])}\n{line(2, judge.wrong[0])}", 2) is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "Judge {steps}"}, "prompt: has no {problem}"),
        ({"step": "{number}"}, "step: has no {text}"),
        ({"verdict": "(?P<verdict>"}, "verdict: is not a regular expression"),
        ({"verdict": r"\w+"}, "verdict: has no group verdict"),
        ({"wrong": ["Right"]}, "right and wrong: must be lists of different words"),
        ({"samples": 0}, "samples: must be at least 1"),
        ({"temperature": -1.0}, "temperature: must be at least 0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_file_that_is_no_judge_is_an_error_that_names_the_field(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fine = {
        "prompt": "{problem}\n{steps}",
        "step": "{text}",
        "verdict": r"(?P<verdict>\w+)",
        "right": ["right"],
        "wrong": ["wrong"],
    }
    file = tmp_path / "judge.yaml"
    file.write_text(yaml.safe_dump({**fine, **changes}))
    with pytest.raises(UserError, match=message):
        Judge.read(file)


def test_a_judge_that_is_not_there_is_an_error_that_names_those_that_ship() -> None:
    with pytest.raises(UserError, match=r"cannot be read.*steps"):
        Judge.read("stepz")

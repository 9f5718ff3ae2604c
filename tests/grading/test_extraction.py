from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.errors import UserError
from stepcredit.grading.extraction import (
    compile_answer_pattern,
    final_answer,
    find_answer,
    stated_answer,
)
from stepcredit.thinking import after_thinking


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\frac{1}{\sqrt{2}}} is it", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\boxed{}", None),
        ("#### 7\nThe answer is 8.", "7"),
        ("The answer is 8.\n#### 7", "7"),
        (r"#### 7 and \boxed{8}", "8"),
        ("A: 5\nA: 6", "6"),
        ("Ans: 6", "6"),
        ("answer = 3 + 4i", "3 + 4i"),
        ("The answer is 5 and 6.", "5 and 6"),
        ("The answer is 1.8 billion people.", "1.8 billion people"),
        ("The answer is 2x.", "2x"),
        ("The answer is $10$%.", r"10\%"),
        ("My answer is 7. I hope my answer is correct.", "7"),
        ("The answer is 2 2/3.", "2 2/3"),
        ("The answer is 10 cm long.", "10 cm"),
        ("The answer is $24$ square feet, so we are done.", "24 square feet"),
        ("The answer is $5.", "$5"),
        ("The answer is 18 because 3*6=18", "18"),
        ("The answer is 3 remainder 1.", "3 remainder 1"),
        ("The answer is 0.333...", "0.333..."),
        ("The answer is 2, 4, 6, ...", "2, 4, 6, ..."),
        ("So <answer> \\frac{1}{2} </answer>", r"\frac{1}{2}"),
        ("<answer>The answer is 7.</answer> I hope.", "7"),
        ("<answer></answer>", None),
        ("#7", None),
        ("Nothing here is marked 5", None),
    ],
)
def test_stated_answers(response: str, answer: str | None) -> None:
    assert stated_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### Step 1: Add\n2+3=5\n#### Step 2: Conclude\nThe answer is 12.", "12"),
        ("We get \\boxed{5}.\n\n#### Verification\nIt is right.", "5"),
        ("#### 1. Find the price\n3*4=12\n#### 2. **Add** it\nThe answer is 15.", "15"),
        ("#### Final Answer\n42", "42"),
        ("#### **Final Answer:** 42", "42"),
        ("#### Schluss\nDie Antwort: 8\n#### 7", "7"),
        ("#### 18\n\nQuestion: How many?", "18"),
        ("#### 5 apples\nQ: How many?", "5 apples"),
        ("#### x = 5\nQ: How many?", "x = 5"),
        ("#### yes\nQ: Is it?", "yes"),
        ("#### (B)\nQ: Which?", "(B)"),
        ("#### Evelyn", "Evelyn"),
    ],
)
def test_a_heading_is_no_answer(response: str, answer: str) -> None:
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is 3 hours and 20 minutes.", "3 hours and 20 minutes"),
        ("The answer is 5 feet 6 inches.", "5 feet 6 inches"),
        ("So it takes 1 hour 30 minutes.", "1 hour 30 minutes"),
        ("The answer is 3 hours for 20 dollars.", "3 hours"),
        ("So they sold 3 million.", "3 million"),
        ("It costs $5 million dollars.", "5 million dollars"),
        ("The total is 1.5e3.", "1.5e3"),
        ("The result is 2.5 x 10^5.", "2.5 x 10^5"),
        ("So there are 10⁵ ways.", "10⁵"),
        ("So the length is √2.", "√2"),
        ("So x=3√(13)", "3√(13)"),
        ("So she needs 2½ cups.", "2½ cups"),
        ("It fell to –5 degrees", "–5 degrees"),
        ("thus 1 000 000", "1 000 000"),
        ("所以答案是18。", "18"),
        ("一共是1.5e3元", "1.5e3"),
        ("合計で-5,000円です。", "-5,000"),
        ("(since 3^2+4^2=25)", "25"),
    ],
)
def test_a_number_is_taken_whole(response: str, answer: str) -> None:
    assert final_answer(response) == answer


def test_without_a_statement_the_last_formula_or_number_counts() -> None:
    assert final_answer("with 3 and $x^2$ we are done") == "x^2"
    assert final_answer("with $x^2$ and 3 we are done") == "3"
    assert final_answer("x2 and b3") is None


@pytest.mark.parametrize(
    ("response", "rest"),
    [
        ("<think>\n\\boxed{5}</think>\nIt is 6.", "\nIt is 6."),
        ("\\boxed{5}\n</think>It is 6.", "It is 6."),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("[THINK]a[/THINK]d", "d"),
        ("<think>\n\\boxed{5}", None),
        ("<think>a</think>b\n<think>c", None),
        ("<think>\\boxed{5}</think>  \n", None),
        ("We close with the tag <think> in words: 5.", "We close with the tag <think> in words: 5."),
        ("It is 6.", "It is 6."),
        ("", None),
    ],
)
def test_the_answer_follows_the_thinking(response: str, rest: str | None) -> None:
    assert after_thinking(response) == rest


def test_a_pattern_finds_its_first_group_at_its_last_match() -> None:
    assert find_answer("r: 1\nr: 2", compile_answer_pattern(r"^r: (\d)$"), str) == "2"
    assert find_answer("r: 1", compile_answer_pattern(r"\d"), str) == "1"
    assert find_answer("none", compile_answer_pattern(r"\d"), str) is None
    with pytest.raises(UserError, match="not a regular expression"):
        compile_answer_pattern("(")


@given(st.text(alphabet="Aanswer is:=#\\boxed{}$[]().,0123456789 \n%*-/", max_size=300))
def test_no_text_breaks_it(response: str) -> None:
    answer = final_answer(response)
    assert answer is None or answer.strip()


@pytest.mark.parametrize(
    "piece",
    [
        r"\boxed{",
        "The answer is ",
        "A: \n",
        "#### ",
        "$",
        r"\[",
        r"\(",
        "1,",
        "answer to ",
        "{",
        "answer: $x",
        "-",
    ],
)
def test_long_texts_take_time_that_grows_with_their_length_only(piece: str) -> None:
    start = time.process_time()
    final_answer(piece * (200_000 // len(piece)))
    assert time.process_time() - start < 2.0

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.errors import DataError, UserError
from stepcredit.steps import (
    StepRule,
    choose_rule,
    grouped,
    join,
    split,
    step_texts,
    step_token_ends,
    steps_at,
    steps_of,
)
from stepcredit.types import Rollout

RULES = [
    "newline",
    "blank-line",
    "step-number",
    "numbered-list",
    "sentence",
    "auto",
    "thinking",
    "turn",
    r"separator:\n\n",
    "separator:ки",
    r"regex:\s*;\s*",
    "regex:(?=Step)",
    "regex:x*",
]
AWKWARD_TEXT = st.text(
    st.one_of(st.sampled_from("\r\n\t .;:12xки\u2028\u00a0é😀Step"), st.characters(codec="utf-8"))
)
PIECES = st.lists(
    st.sampled_from(["Step 1:", "\n", "\r\n", "\n\n", " ", "2. ", "a.", "ки", ";", "**", "x", "…", "。"])
).map("".join)


@given(response=st.one_of(AWKWARD_TEXT, PIECES), rule=st.sampled_from(RULES))
def test_steps_tile_any_text_by_any_rule(response: str, rule: str) -> None:
    steps = split(response, StepRule.parse(rule))
    assert "".join(step.text for step in steps) == response
    assert [step.index for step in steps] == list(range(len(steps)))
    assert steps[0].start == 0
    assert steps[-1].end == len(response)
    assert all(before.end == after.start for before, after in pairwise(steps))
    assert all(step.text == response[step.start : step.end] for step in steps)
    assert all(step.text.strip() for step in steps) or len(steps) == 1


@pytest.mark.parametrize(
    ("rule", "response", "expected"),
    [
        ("newline", "a\nb\n#3", ["a\n", "b\n", "#3"]),
        ("newline", "a\n  b\n\n\nc\n", ["a\n", "  b\n\n\n", "c\n"]),
        ("newline", "\n\na\r\nb\r\n\r\n", ["\n\na\r\n", "b\r\n\r\n"]),
        ("newline", "a\rb", ["a\r", "b"]),
        ("newline", "", [""]),
        ("newline", " \n \n", [" \n \n"]),
        ("blank-line", "a\nb\n \t\nc\n\n", ["a\nb\n \t\n", "c\n\n"]),
        ("blank-line", "a\r\n\r\nb", ["a\r\n\r\n", "b"]),
        ("blank-line", "a\r\nb\r\n", ["a\r\nb\r\n"]),
        ("blank-line", "a\r\rb\n\rc", ["a\r\r", "b\n\r", "c"]),
        ("step-number", "So:\nStep 1: x\ny\nStep 2: z", ["So:\n", "Step 1: x\ny\n", "Step 2: z"]),
        ("step-number", "**Step 1:** x\n### Step 2. y", ["**Step 1:** x\n", "### Step 2. y"]),
        ("step-number", "as in Step 1: x", ["as in Step 1: x"]),
        ("numbered-list", "Plan:\n1. a\nb\n2) c 3. d", ["Plan:\n", "1. a\nb\n", "2) c 3. d"]),
        ("sentence", 'It is 3.5 m. So 4! "Yes." Ok', ["It is 3.5 m.", " So 4!", ' "Yes."', " Ok"]),
        ("sentence", "1. Add. Then stop.\nEnd", ["1. Add.", " Then stop.\n", "End"]),
        ("sentence", "一。二！三", ["一。", "二！", "三"]),
        ("separator:;", ";a;;b;", [";a;;", "b;"]),
        ("separator:ки", "a ки\nb ки", ["a ки", "\nb ки"]),
        (r"regex:\|+", "a||b", ["a||", "b"]),
        ("regex:(?=Step)", "Step1Step2", ["Step1", "Step2"]),
    ],
)
def test_a_separator_belongs_to_the_step_it_ends(rule: str, response: str, expected: list[str]) -> None:
    assert [step.text for step in split(response, StepRule.parse(rule))] == expected


@pytest.mark.parametrize("text", [*RULES, r"separator:\\n", "separator: a\tb "])
def test_a_rule_reads_what_it_writes(text: str) -> None:
    rule = StepRule.parse(text)
    assert StepRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["newlines", "", "separator", "separator:", "regex:(", "regex:a{99999999999}", "newline:x"]
)
def test_a_rule_that_does_not_exist_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError, match="--steps"):
        StepRule.parse(text)


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        (["Step 1: a\n\nStep 2: b", "Step 1: a\nStep 2: b"], "step-number"),
        (["a\n\nb", "c\nd\n\ne"], "blank-line"),
        (["1. a\n2. b"], "numbered-list"),
        (["a\nb", "c\nd\n"], "newline"),
        (["a\r\nb", "c\r\nd\r\n"], "newline"),
        (["One. Two."], "sentence"),
        (["a", "b"], "newline"),
        ([], "newline"),
    ],
)
def test_auto_takes_the_first_rule_that_fits_half_of_the_data(responses: list[str], expected: str) -> None:
    assert str(choose_rule(responses)) == expected


def test_a_token_belongs_to_the_step_in_which_it_starts() -> None:
    response = "ab\n\ncd\nef"
    steps = split(response, StepRule("newline"))  # 0-4, 4-7, 7-9
    # Tokens: "ab" at 0, "\n" at 2, "\nc" at 3 (straddles, starts in the first), "d\n" 5, "ef" 7, end at 9.
    assert step_token_ends([0, 2, 3, 5, 7, 9], steps) == (3, 4, 6)


def test_a_step_in_which_no_token_starts_has_none() -> None:
    steps = split("a;b;c", StepRule("separator", ";"))
    assert step_token_ends([0, 0, 5], steps) == (2, 2, 3)


@given(PIECES, st.sampled_from(RULES), st.lists(st.integers(0, 40)))
def test_every_token_is_in_exactly_one_step(response: str, rule: str, starts: list[int]) -> None:
    steps = split(response, StepRule.parse(rule))
    ends = step_token_ends(sorted(starts), steps)
    assert list(ends) == sorted(ends)
    assert ends[-1] == len(starts)
    for step, (begin, end) in zip(steps, pairwise((0, *ends)), strict=True):
        for start in sorted(starts)[begin:end]:
            assert step.start <= start
            assert start < step.end or step is steps[-1]


def rollout(response: str, steps: object) -> Rollout:
    return Rollout(id="r1", prompt_id="p", prompt="?", response=response, extras={"steps": steps})


def test_listed_steps_start_where_their_texts_are_found() -> None:
    steps = steps_of(rollout("  a b\n\na\n\nc\n", ["a b", "a", "c"]), StepRule("newline"))
    assert [step.text for step in steps] == ["  a b\n\n", "a\n\n", "c\n"]


def test_a_listed_step_that_is_not_there_is_a_data_error() -> None:
    with pytest.raises(DataError, match="r1: step 2 of the field 'steps'"):
        steps_of(rollout("a\nb", ["a", "c"]), StepRule("newline"))


@pytest.mark.parametrize("steps", [None, [], "ab", [1, 2], [{"text": "a"}]])
def test_other_fields_called_steps_are_left_alone(steps: object) -> None:
    assert [step.text for step in steps_of(rollout("a\nb", steps), StepRule("newline"))] == ["a\n", "b"]


def test_step_texts_are_without_separators() -> None:
    assert step_texts(rollout(" a ;; b;", None), StepRule("separator", ";")) == ["a", "b"]
    assert step_texts(rollout("a\nb", ["x ", "y"]), StepRule("newline")) == ["x ", "y"]
    assert step_texts(rollout("a\n\nb", None), StepRule("auto")) == ["a", "b"]


def test_join_gives_separators_to_the_step_before() -> None:
    assert [step.text for step in join(["a", "", "c"], "\n\n")] == ["a\n\n", "\n\n", "c"]
    assert [step.text for step in join([], "\n")] == [""]


@pytest.mark.parametrize("ends", [[], [1], [2, 1, 3], [3, 4], [-1, 3]])
def test_ends_that_do_not_rise_to_the_end_are_refused(ends: list[int]) -> None:
    with pytest.raises(DataError, match=re.escape(str(ends))):
        steps_at("abc", ends)


FENCE = "```python\ndef f(x):\n\n    return x\n\n\nprint(f(1))\n```"
TABLE = "| a | b |\n| - | - |\n\n| 1 | 2 |"
FORMULA = "\\[\nx = 1\n\n+ 2\n\\]"
ALIGNED = "\\begin{align*}\nx\n\n\\end{align*}"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>\na\n\nb\n</think>\n\nc", ["<think>\na\n\n", "b\n</think>\n\n", "c"]),
        ("<think>\n\na\n\n</think>\n\nc\n\nd", ["<think>\n\na\n\n</think>\n\n", "c\n\n", "d"]),
        ("a\n\nb</think>c", ["a\n\n", "b</think>", "c"]),
        ("a\n\nb", ["a\n\n", "b"]),
        (f"Here:\n\n{FENCE}\n\nDone.", ["Here:\n\n", f"{FENCE}\n\n", "Done."]),
        (f"<think>\n{FENCE}\n\na\n</think>\n\n7", [f"<think>\n{FENCE}\n\n", "a\n</think>\n\n", "7"]),
        (f"a\n\n{TABLE}\n\nb", ["a\n\n", f"{TABLE}\n\n", "b"]),
        (
            f"a\n\n{FORMULA}\n\n$$y\n\nz$$\n\n{ALIGNED}",
            ["a\n\n", f"{FORMULA}\n\n", "$$y\n\nz$$\n\n", ALIGNED],
        ),
        # A block that is not closed does not reach beyond the thinking; a formula that is not closed is none.
        ("<think>\n```\na\n\nb\n</think>\n\nc\n\nd", ["<think>\n```\na\n\nb\n</think>\n\n", "c\n\n", "d"]),
        ("$$a\n\nb", ["$$a\n\n", "b"]),
    ],
)
def test_long_thinking_is_cut_at_blank_lines_outside_of_blocks(response: str, expected: list[str]) -> None:
    assert [step.text for step in split(response, StepRule("thinking"))] == expected


def test_steps_are_put_together_up_to_a_number_of_tokens() -> None:
    steps = split("aaa\n\nb\n\nc\n\ndddd\n\ne", StepRule("thinking"))
    ends = (3, 4, 5, 9, 10)
    for most, texts, kept in (
        (1, ["aaa\n\n", "b\n\n", "c\n\n", "dddd\n\n", "e"], ends),
        (2, ["aaa\n\n", "b\n\nc\n\n", "dddd\n\n", "e"], (3, 5, 9, 10)),
        (5, ["aaa\n\nb\n\nc\n\n", "dddd\n\ne"], (5, 10)),
        (99, ["aaa\n\nb\n\nc\n\ndddd\n\ne"], (10,)),
        (None, [step.text for step in steps], ends),
    ):
        together, token_ends = grouped(steps, ends, most)
        assert [step.text for step in together] == texts
        assert token_ends == kept


def test_the_most_tokens_are_a_part_of_the_rule() -> None:
    rule = StepRule.parse("thinking:512")
    assert (rule.max_tokens, str(rule)) == (512, "thinking:512")
    assert StepRule.text("thinking", 512) == "thinking:512"
    assert StepRule.text("newline", None) == "newline"
    for steps in ("newline", None):
        with pytest.raises(UserError, match="--max-step-tokens: only the rule thinking merges steps"):
            StepRule.text(steps, 512)
    with pytest.raises(UserError, match="'many' is not a number of tokens"):
        StepRule.parse("thinking:many")


@pytest.mark.parametrize(
    ("rule", "piece"),
    [
        ("newline", " "),
        ("blank-line", "\t"),
        ("sentence", " "),
        ("sentence", "."),
        ("thinking", " "),
        ("thinking", r"\[ a "),
        ("thinking", r"\begin{a}"),
    ],
)
def test_a_response_that_repeats_itself_for_ever_is_split_in_time_that_grows_with_its_length(
    rule: str, piece: str
) -> None:
    started = time.process_time()
    assert len(split(piece * (50_000 // len(piece)) + "x", StepRule.parse(rule))) == 1
    assert time.process_time() - started < 1

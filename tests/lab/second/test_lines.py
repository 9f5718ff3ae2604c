from __future__ import annotations

import pytest

from stepcredit.lab.second.lines import Line, State, after, parse_answer, parse_line, start
from stepcredit.lab.task import Problem

PROBLEM = Problem(63, "*+", (7, 5), modulus=130)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("63*7=51", Line("terse", 63, "*", 7, 51)),
        ("so 63*7=51", Line("careful", 63, "*", 7, 51)),
        ("take 63, then *7, so 63*7=51", Line("verbose", 63, "*", 7, 51)),
        ("wait, 63*7=51", Line("wait", 63, "*", 7, 51)),
        ("check 63*7=51", Line("check", 63, "*", 7, 51)),
        ("aside 08+4=12", Line("aside", 8, "+", 4, 12)),
        ("back 112-4=108", Line("back", 112, "-", 4, 108)),
    ],
)
def test_a_line_is_read_as_it_is_written(text: str, line: Line) -> None:
    assert parse_line(text, PROBLEM) == line
    assert line.text(PROBLEM) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "63*7=",
        "63*7=130",  # not below the modulus
        "8+4=12",  # numbers have two digits or three
        "008+4=12",
        "wait 63*7=51",
        "so take 63*7=51",
        "take 63, then *7, so 64*7=58",  # says two things
        "#51",
        "63*7=51 ",
    ],
)
def test_what_no_form_has_is_no_line(text: str) -> None:
    assert parse_line(text, PROBLEM) is None


@pytest.mark.parametrize(
    ("text", "answer"), [("#56", 56), ("#06", 6), ("#129", 129), ("#6", None), ("#130", None), ("56", None)]
)
def test_an_answer_has_one_spelling(text: str, answer: int | None) -> None:
    assert parse_answer(text, PROBLEM) == answer


def state_after(*texts: str) -> State | None:
    state: State | None = start(PROBLEM)
    for text in texts:
        assert state is not None
        line = parse_line(text, PROBLEM)
        assert line is not None
        state = after(PROBLEM, state, line)
    return state


def test_a_tutor_goes_on_from_what_the_last_line_states() -> None:
    assert state_after("so 63*7=61") == State(1, 61, "careful", "stated", 63)
    assert state_after("so 63*7=61", "wait, 63*7=51") == State(1, 51, "careful", "ready")
    assert state_after("aside 63+4=67") == State(0, 67, "verbose", "away", 4)
    assert state_after("aside 63+4=67", "back 67-4=63") == State(0, 63, "verbose", "returned")


@pytest.mark.parametrize(
    "texts",
    [
        ("wait, 63*7=51",),  # nothing to correct
        ("63*7=51", "check 63*7=51", "check 63*7=51"),  # no operation is done a third time
        ("back 67-4=63",),
        ("aside 63+4=67", "aside 67+4=71"),
        ("63*7=51", "51+5=56", "56+5=61"),  # no operation is left
    ],
)
def test_lines_out_of_place_end_what_a_tutor_could_write(texts: tuple[str, ...]) -> None:
    assert state_after(*texts) is None

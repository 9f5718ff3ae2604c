from __future__ import annotations

import pytest

from stepcredit.lab.oracles import check_steps, first_wrong_step, label_steps
from stepcredit.lab.task import Problem
from stepcredit.types import Rollout

PROBLEM = Problem(63, "*+", (7, 5), modulus=130)


def right(response: str) -> list[bool]:
    return [label.label == 1 for label in check_steps(PROBLEM, response)]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("63*7=51\n51+5=56\n#56", [True, True, True]),
        ("63*7=61\n61+5=66\n#66", [False, False, False]),
        ("so 63*7=61\nwait, 63*7=51\nso 51+5=56\n#56", [False, True, True, True]),  # an error undone
        (
            "so 63*7=51\ncheck 63*7=41\nso 41+5=46\n#46",
            [True, False, False, False],
        ),  # undone itself
        ("so 63*7=61\ncheck 63*7=61\nso 61+5=66\n#66", [False, False, False, False]),
        (
            "aside 63+4=67\nback 67-4=63\ntake 63, then *7, so 63*7=51\ntake 51, then +5, so 51+5=56\n#56",
            [True] * 5,
        ),
        ("aside 63+4=68\nback 68-4=64\n64*7=58\n58+5=63\n#63", [False] * 5),
        ("aside 63+4=67\n67*7=79\n79+5=84\n#84", [True, False, False, False]),  # it never came back
        ("aside 63+4=67\nback 67-3=64\n64*7=58", [True, False, False]),
        ("63*7=61\n61+5=56\n#56", [False, False, True]),  # two errors that cancel each other
        ("64*7=51\n51+5=56\n#56", [False, True, True]),
        ("63*7=51\nwait, 64*7=51\n51+5=56\n#56", [True, False, True, True]),
        ("51+5=56\n#56", [False, False]),
        ("63*7=51\nhm\n51+5=56\n#56", [True, False, False, False]),
        ("63*7=51\n51+5=56\n#56\n#56", [True, True, True, False]),
    ],
)
def test_which_steps_are_right(response: str, expected: list[bool]) -> None:
    assert right(response) == expected


def test_the_first_wrong_step_is_wrong_though_a_later_one_undoes_it() -> None:
    response = "so 63*7=61\nwait, 63*7=51\nso 51+5=56\n#56"
    assert first_wrong_step(PROBLEM, response) == 0
    labels = label_steps(Rollout(id="a", prompt_id="a", prompt=PROBLEM.text, response=response))
    assert [label.label for label in labels] == [0.0, 1.0, 1.0, 1.0]
    assert labels[-1].end == len(response)

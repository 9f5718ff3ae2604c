import pytest

from stepcredit.reports.terminal import render_terminal
from stepcredit.types import ResponseScore, StepScore


def score(rewards: list[float]) -> ResponseScore:
    steps = tuple(
        StepScore(i, f"line {i} [bold]\n", 16 * i, 16 * i + 16, reward, sum(rewards[: i + 1]))
        for i, reward in enumerate(rewards)
    )
    return ResponseScore(
        id="1",
        prompt_id="1",
        reward=sum(rewards),
        steps=steps,
        aggregates={"min": min(rewards)},
        num_tokens=7,
        scorer="implicit: m",
    )


def test_each_step_has_its_reward_and_the_lowest_is_marked() -> None:
    lines = render_terminal(score([0.5, -1.25, 0.0]), colour=False).splitlines()
    assert lines[1].split() == ["1", "+0.5000", "+0.5000", "line", "0", "[bold]"]
    assert lines[2].split() == ["2", "-1.2500", "-0.7500", "line", "1", "[bold]", "←", "lowest"]
    assert [("lowest" in line) for line in lines[:4]] == [False, False, True, False]
    assert lines[-1] == "7 tokens, implicit: m"
    assert "\x1b" not in "".join(lines)


def test_a_single_step_is_not_called_the_lowest() -> None:
    assert "lowest" not in render_terminal(score([0.5]), colour=False)


@pytest.mark.parametrize(("reward", "colour"), [(1.0, "33;102;172"), (-1.0, "204;102;0")])
def test_colours_tell_the_sign(reward: float, colour: str) -> None:
    assert colour in render_terminal(score([reward, reward / 2]), colour=True)

from __future__ import annotations

import math

import pytest
from tests.reports.pages import Element, assert_self_contained, parse

from stepcredit.reports.examples import Example, ExampleStep, ExampleToken
from stepcredit.reports.heatmap import heat_map, render_heatmap
from stepcredit.reports.page import render_page
from stepcredit.tints import Tint, scale_for
from stepcredit.types import ResponseScore, Rollout, StepLabel, StepScore


def example(rewards: list[float], **fields: object) -> Example:
    steps = tuple(ExampleStep(text=f"step {index}\n", reward=reward) for index, reward in enumerate(rewards))
    values: dict[str, object] = {"prompt": "1+1=", "steps": steps, **fields}
    return Example(**values)  # type: ignore[arg-type]


def page(*examples: Example) -> str:
    return render_page("heatmap.html", title="t", heat_map=heat_map(examples), scorers=["prm"])


def rows(html: str) -> list[Element]:
    (steps,) = parse(html).of_class("ol", "steps")
    return steps.all("li")


def test_colours_diverge_from_zero_and_saturate_at_the_limit() -> None:
    scale = scale_for([-2.0, 1.0])
    assert scale.limit == 2.0
    assert scale.tint(1.0) == Tint("high", 50)
    assert scale.tint(-0.5) == Tint("low", 25)
    assert scale.tint(-9.0) == scale.tint(-math.inf) == Tint("low", 100)
    assert scale.tint(0.0) == scale.tint(math.nan) == Tint("", 0)


def test_one_outlier_in_many_does_not_fade_the_others() -> None:
    assert scale_for([*[1.0] * 99, 1000.0]).limit == 1.0


def test_a_scale_of_nothing_is_harmless() -> None:
    assert scale_for([]).tint(0.0) == Tint("", 0)
    assert scale_for([math.nan, 0.0]).limit == 1.0


def test_each_step_shows_its_text_its_number_and_its_colour() -> None:
    first, second = rows(page(example([0.25, -1.5])))
    assert first.of_class("span", "text")[0].text == "step 0"
    assert "+0.25" in first.text
    assert {"tint", "high"} <= first.classes
    assert "−1.50" in second.text
    assert {"tint", "low"} <= second.classes
    assert second.attributes["style"] == "--strength:100"
    assert "−1.5000" in second.attributes["title"]


def test_the_truly_wrong_and_the_lowest_step_are_marked_in_words() -> None:
    listed = rows(page(example([0.1, -0.2, -1.0], first_wrong_step=1)))
    assert ["first wrong" in row.text for row in listed] == [False, True, False]
    assert ["lowest" in row.text for row in listed] == [False, False, True]


def test_a_single_step_is_not_called_the_lowest() -> None:
    assert "lowest" not in rows(page(example([-1.0])))[0].text


def test_hostile_text_stays_text() -> None:
    hostile = "</span><script>alert(1)</script>{{ 7*7 }}\"'&amp;"
    shown = Example(
        prompt=hostile,
        steps=(ExampleStep(text=hostile, reward=0.1),),
        id=hostile,
        policy=hostile,
        answer=hostile,
        prediction=hostile,
        correct=False,
        note=hostile,
        tokens=(ExampleToken(text=hostile, reward=0.1),),
    )
    html = page(shown)
    assert "<script>alert" not in html
    document = parse(html)
    (card,) = document.all("article")
    assert card.attributes["aria-label"] == f"Response {hostile}"
    assert card.text.count(hostile) == 7  # note, prompt, prediction, answer, policy, step, token
    assert_self_contained(html)


def test_empty_steps_and_empty_responses_say_so() -> None:
    assert (
        "empty step" in rows(page(Example(prompt="p", steps=(ExampleStep(text="\n", reward=0.0),))))[0].text
    )
    assert "the response is empty" in page(Example(prompt="p", steps=()))
    assert "There are no responses to show" in page()


def test_rewards_that_are_not_numbers_are_shown_as_such() -> None:
    listed = rows(page(example([math.nan, -math.inf, 1.0])))
    assert "–" in listed[0].text
    assert "−∞" in listed[1].text
    assert "lowest" in listed[1].text


def test_the_token_view_shows_every_token_with_its_reward() -> None:
    tokens = tuple(
        ExampleToken(text=text, reward=reward) for text, reward in [("a", 0.5), (" \n", -1), ("", 0)]
    )
    shown = parse(page(example([0.1], tokens=tokens))).of_class("span", "token")
    assert [token.text for token in shown] == ["a+0.50", "↵−1.00", "∎0.00"]
    assert "low" in shown[1].classes
    assert len(parse(page(example([0.1], tokens=tokens))).all("br")) == 1  # after the line end


def test_without_token_rewards_there_is_no_token_view() -> None:
    assert not parse(page(example([0.1]))).all("details")


def test_short_responses_stand_side_by_side_and_long_ones_do_not() -> None:
    assert heat_map([example([0.1])]).short
    assert not heat_map([Example(prompt="p", steps=(ExampleStep(text="x" * 300, reward=0.1),))]).short


def test_a_very_long_response_is_rendered_whole() -> None:
    listed = rows(page(example([0.01 * index for index in range(2000)])))
    assert len(listed) == 2000
    assert listed[-1].of_class("span", "index")[0].text == "2000"


@pytest.mark.parametrize("response", ["7*8=6\n#6", "Ünïcödé ✓\n日本語 😀"])
def test_scored_rollouts_become_a_page(response: str) -> None:
    cut = response.index("\n") + 1
    steps = (
        StepScore(0, response[:cut], 0, cut, -0.75, -0.75),
        StepScore(1, response[cut:], cut, len(response), 0.25, -0.5),
    )
    rollout = Rollout(
        id="r",
        prompt_id="p",
        prompt="7*8=",
        response=response,
        answer="6",
        correct=True,
        step_labels=(StepLabel(cut, 0.0), StepLabel(len(response), 0.0)),
    )
    score = ResponseScore(
        id="r", prompt_id="p", reward=-0.5, steps=steps, aggregates={}, num_tokens=2, scorer="implicit <prm>"
    )
    html = render_heatmap([rollout], [score])
    assert_self_contained(html)
    text = parse(html).all("main")[0].text
    for part in (
        *response.split("\n"),
        "−0.75",
        "+0.25",
        "−0.50",
        "implicit <prm>",
        "right answer",
        "first wrong",
    ):
        assert part in text

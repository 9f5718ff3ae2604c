"""Rewards as colours, and a scored response as a notebook shows it."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

from stepcredit.types import ResponseScore, StepScore


class Reader(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def colours(html: str) -> list[tuple[str, float]]:
    found = re.findall(r'<tr style="background: rgba\((\d+, \d+, \d+), ([\d.]+)\)">', html)
    return [(colour, float(strength)) for colour, strength in found]


def shown(*steps: tuple[str, float], scorer: str = "") -> str:
    rewarded = tuple(StepScore(index, text, 0, 0, reward, 0.0) for index, (text, reward) in enumerate(steps))
    score = ResponseScore(
        id="r", prompt_id="p", reward=0.0, steps=rewarded, aggregates={}, num_tokens=1, scorer=scorer
    )
    return score._repr_html_()


def test_steps_are_coloured_by_the_side_and_size_of_their_rewards() -> None:
    (high, strong), (low, weak), (_, none), (_, unknown) = colours(
        shown(("a\n", 2.0), ("b\n", -1.0), ("c", 0.0), ("d", math.nan))
    )
    assert high != low
    assert strong == 2 * weak
    assert none == unknown == 0


def test_text_is_escaped_and_nothing_outside_is_named() -> None:
    html = shown(("<script>alert(1)</script> & </td>\n", 1.0), scorer="<b>scorer</b>")
    reader = Reader(html)
    assert set(reader.tags) == {"table", "caption", "tr", "td"}
    assert "<script>alert(1)</script> & </td>" in reader.texts
    assert "http" not in html
    assert "url(" not in html


def test_the_lowest_step_is_marked_where_steps_differ() -> None:
    assert shown(("a", 1.0), ("b", -1.0), ("c", 0.5)).count("lowest") == 1
    assert "lowest" not in shown(("a", 1.0), ("b", 1.0))


def test_a_score_shows_its_steps_in_a_notebook() -> None:
    steps = (StepScore(0, "1+1=2\n", 0, 6, 0.5, 0.5), StepScore(1, "#3", 6, 8, -2.0, -1.5))
    score = ResponseScore(
        id="r", prompt_id="p", reward=-1.5, steps=steps, aggregates={}, num_tokens=1, scorer="implicit: prm"
    )
    texts = Reader(score._repr_html_()).texts
    assert texts == [
        "reward -1.500, 1 token, implicit: prm",
        "1",
        "1+1=2",
        "+0.500",
        "2",
        "#3",
        "-2.000 ▼ lowest",
    ]

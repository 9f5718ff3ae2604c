from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from tests.reports.pages import assert_self_contained, parse

import stepcredit.reports
from stepcredit.reports.heatmap import heat_map
from stepcredit.reports.page import (
    count,
    duration,
    interval,
    percent,
    plain,
    points,
    render_page,
    signed,
)

TEMPLATES = Path(stepcredit.reports.__file__).parent / "templates"


def a_page(title: str = "A title") -> str:
    return render_page("heatmap.html", title=title, heat_map=heat_map([]), scorers=[])


def test_a_page_is_one_file_that_loads_nothing() -> None:
    assert_self_contained(a_page())


def test_a_page_says_what_it_is_to_browsers_and_readers() -> None:
    document = parse(a_page())
    (html,) = document.all("html")
    assert html.attributes["lang"] == "en"
    assert document.all("title")[0].text == "A title"
    assert [meta for meta in document.all("meta") if meta.attributes.get("name") == "viewport"]
    assert len(document.all("main")) == 1
    assert len(document.all("h1")) == 1


def test_the_keyboard_reaches_the_content_first_and_the_theme_has_a_name() -> None:
    document = parse(a_page())
    first_link = document.all("a")[0]
    assert first_link.attributes["href"] == "#content"
    assert document.all("main")[0].attributes["id"] == "content"
    (button,) = document.all("button")
    assert button.attributes["aria-label"]
    assert "hidden" in button.attributes  # shown by the script that makes it work


def test_titles_are_escaped() -> None:
    html = a_page('<img src=x onerror="alert(1)">')
    assert "<img" not in html
    assert parse(html).all("h1")[0].text == '<img src=x onerror="alert(1)">'


def test_numbers_are_written_with_sign_unit_and_absence() -> None:
    assert percent(0.8849) == "88.5%"
    assert percent(None) == percent(math.nan) == "–"
    assert points(-0.031) == "−3.1"
    assert points(0.5) == "+50.0"
    assert interval(0.1, 0.25) == "10.0 to 25.0"
    assert interval(None, 0.25) == ""
    assert signed(0.456) == "+0.46"
    assert signed(-2.0) == "−2.00"
    assert signed(-0.001) == "0.00"
    assert signed(math.nan) == "–"
    assert signed(-math.inf) == "−∞"
    assert plain(-1234.5, 1) == "−1,234.5"
    assert plain(math.inf) == "–"
    assert count(12345) == "12,345"
    assert count(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "written"), [(3.21, "3.2 s"), (48.4, "48 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")]
)
def test_durations_are_written_as_people_say_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def _colours() -> dict[str, tuple[str, str]]:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    pattern = r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)"
    return {name: (light, dark) for name, light, dark in re.findall(pattern, style)}


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        *((text, behind) for text in ("ink", "soft", "accent") for behind in ("paper", "card", "sunk")),
        *((text, "card") for text in ("good", "bad")),
        *(("ink", tint) for tint in ("tint-high", "tint-low")),
    ],
)
def test_text_is_readable_on_what_lies_behind_it(theme: int, text: str, behind: str) -> None:
    colours = _colours()
    assert _contrast(colours[text][theme], colours[behind][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("colour", ["blue", "orange", "green", "purple", "sky", "brown", "grey"])
def test_lines_and_marks_stand_out_from_the_page(theme: int, colour: str) -> None:
    colours = _colours()
    assert _contrast(colours[colour][theme], colours["paper"][theme]) >= 3

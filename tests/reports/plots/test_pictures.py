"""Every kind of plot: marks lie where the numbers say, and the numbers stand in a table beneath."""

from __future__ import annotations

import math
import re

import pytest
from tests.reports.pages import Element, parse

from stepcredit.reports.plots import (
    Axis,
    Counts,
    Interval,
    Line,
    Mark,
    Point,
    ReliabilityBin,
    histogram,
    interval_plot,
    legend,
    line_plot,
    reliability_plot,
    scatter_plot,
)
from stepcredit.reports.plots.axes import Frame

CIRCLE = Mark("blue", "circle")
SHARE = Axis(label="share", percent=True, low=0.0, high=1.0)
FRAME = Frame()
LEFT, RIGHT = FRAME.left, FRAME.width - FRAME.right
FLOOR, TOP = FRAME.height - FRAME.bottom, FRAME.top


def height_of(share: float) -> float:
    """The vertical coordinate of a share on the axis from 0 to 1 of the default frame."""
    return FLOOR - share * (FLOOR - TOP)


def circles(figure: Element) -> list[tuple[float, float]]:
    return [(mark.number("cx"), mark.number("cy")) for mark in figure.of_class("circle", "mark")]


def table(figure: Element) -> list[list[str]]:
    (body,) = figure.all("tbody")
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in body.all("tr")]


def corners(path: Element) -> list[tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.attributes["d"])]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def curve(line: Line) -> Element:
    return parse(str(line_plot([line], title="T", x=Axis(label="n", log2=True), y=SHARE)))


def test_points_of_a_curve_lie_where_the_numbers_say() -> None:
    figure = curve(Line(name="a", x=[1, 4, 16], y=[0.0, 0.5, 1.0], mark=CIRCLE))
    middle = (LEFT + RIGHT) / 2  # 4 is half-way from 1 to 16 on a log scale
    expected = [(LEFT, FLOOR), (middle, height_of(0.5)), (RIGHT, TOP)]
    assert circles(figure) == [pytest.approx(place, abs=0.01) for place in expected]
    (line,) = figure.of_class("path", "line")
    assert corners(line) == [pytest.approx(place, abs=0.01) for place in expected]


def test_a_band_goes_along_the_upper_ends_and_back_along_the_lower_ones() -> None:
    figure = curve(Line(name="a", x=[1, 4], y=[0.3, 0.5], low=[0.2, 0.4], high=[0.6, 0.7]))
    (band,) = figure.of_class("path", "band")
    expected = [(LEFT, 0.6), (RIGHT, 0.7), (RIGHT, 0.4), (LEFT, 0.2)]
    assert corners(band) == [pytest.approx((x, height_of(share)), abs=0.01) for x, share in expected]


def test_the_table_and_the_tooltips_of_a_curve_hold_its_numbers() -> None:
    figure = curve(Line(name="a", x=[1, 4], y=[0.25, 0.5], low=[0.2, 0.4], high=[0.3, 0.6], mark=CIRCLE))
    assert table(figure) == [["a", "1", "25.0%", "20.0% to 30.0%"], ["a", "4", "50.0%", "40.0% to 60.0%"]]
    assert [title.text for title in figure.all("title")] == [
        "a, 1: 25.0% (20.0% to 30.0%)",
        "a, 4: 50.0% (40.0% to 60.0%)",
    ]


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_value_is_a_gap_and_not_a_point(missing: float | None) -> None:
    figure = curve(Line(name="a", x=[1, 2, 4, 8], y=[0.1, missing, 0.3, 0.4], mark=CIRCLE))
    assert len(figure.of_class("path", "line")) == 2
    assert len(circles(figure)) == len(table(figure)) == 3


def test_a_long_curve_is_drawn_without_a_mark_at_every_point() -> None:
    line = Line(name="a", x=list(range(1, 200)), y=[0.5] * 199, mark=CIRCLE)
    figure = curve(line)
    assert not circles(figure)
    assert len(table(figure)) == 199


def test_series_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        Line(name="a", x=[1, 2], y=[0.5])


def test_several_curves_have_a_legend_and_different_shapes() -> None:
    lines = [Line(name=name, x=[1, 2], y=[0.5, 0.6]) for name in ("one", "two <b>")]
    figure = parse(str(line_plot(lines, title="T", x=Axis(label="n"), y=SHARE)))
    (key,) = figure.of_class("ul", "legend")
    assert [item.text for item in key.all("li")] == ["one", "two <b>"]
    shapes = [
        [mark.name for mark in group.children if isinstance(mark, Element) and "mark" in mark.classes]
        for group in figure.of_class("g", "series")
    ]
    assert shapes[0] != shapes[1]
    assert len(parse(str(legend([("a", CIRCLE)]))).all("li")) == 1


def test_nothing_to_draw_is_said() -> None:
    empty = line_plot([], title="T", x=Axis(label="n"), y=SHARE)
    assert "No numbers to draw" in empty
    assert "<svg" not in empty


def test_intervals_lie_on_one_scale_with_their_numbers() -> None:
    figure = parse(
        str(
            interval_plot(
                [
                    Interval(name="a", value=0.5, low=0.25, high=0.75),
                    Interval(name="b", value=None),
                    Interval(name="c", value=1.0),
                ],
                title="T",
                x=SHARE,
                reference=0.5,
            )
        )
    )
    left, right = 8, 352
    middle = (left + right) / 2
    assert [x for x, _ in circles(figure)] == pytest.approx([middle, right])
    bar = figure.of_class("line", "error")[0]
    assert (bar.number("x1"), bar.number("x2")) == pytest.approx(
        (left + 0.25 * (right - left), left + 0.75 * (right - left))
    )
    (reference,) = figure.of_class("line", "reference")
    assert reference.number("x1") == middle
    assert [text.text for text in figure.of_class("text", "value")] == [
        "50.0% (25.0% to 75.0%)",
        "absent",
        "100.0%",
    ]
    assert table(figure) == [["a", "50.0%", "25.0% to 75.0%"], ["c", "100.0%", "–"]]


def test_numbers_go_under_names_that_leave_no_room_and_longer_names_are_cut() -> None:
    rows = [Interval(name="n" * 45, value=0.5), Interval(name="n" * 99, value=-0.25)]
    figure = parse(str(interval_plot(rows, title="T", x=Axis(label="x", percent=True))))
    names, values = figure.of_class("text", "name"), figure.of_class("text", "value")
    assert names[0].text == "n" * 45
    assert names[1].text.endswith("n…")
    assert all(value.number("y") > name.number("y") + 10 for name, value in zip(names, values, strict=True))
    assert [row[:2] for row in table(figure)] == [["n" * 45, "50.0%"], ["n" * 99, "−25.0%"]]


def test_bars_of_a_histogram_grow_with_their_share_of_the_group() -> None:
    figure = parse(
        str(
            histogram(
                [0, 1, 2, 4],
                [Counts(name="a", counts=[10, 5, 0]), Counts(name="b", counts=[0, 0, 3])],
                title="T",
                x=Axis(label="reward"),
                unit="steps",
            )
        )
    )
    first, second, third = figure.of_class("rect", "bar")
    assert first.number("height") == pytest.approx(2 * second.number("height"))
    assert third.number("height") == pytest.approx(first.number("height"))  # the fullest bin of its group
    width = 344 / 4  # the scale goes from 0 to 4
    assert first.number("x") == pytest.approx(8.5)
    assert second.number("x") == pytest.approx(8.5 + width)
    assert third.number("width") == pytest.approx(2 * width - 1)
    assert table(figure) == [
        ["a", "0 to 1", "10", "66.7%"],
        ["a", "1 to 2", "5", "33.3%"],
        ["b", "2 to 4", "3", "100.0%"],
    ]
    assert "15 steps" in figure.text


def test_a_histogram_needs_one_edge_more_than_bins() -> None:
    with pytest.raises(ValueError, match="2 bins"):
        histogram([0, 1, 2], [Counts(name="a", counts=[1])], title="T", x=Axis(label="x"))


def test_scattered_points_lie_where_the_numbers_say() -> None:
    points = [
        Point(name="cheap", x=1, y=0.25, low=0.2, high=0.3, mark=CIRCLE),
        Point(name="dear", x=4, y=0.75, mark=CIRCLE),
        Point(name="unknown", x=math.nan, y=0.5),
        Point(name="free", x=0, y=0.5),
    ]
    figure = parse(str(scatter_plot(points, title="T", x=Axis(label="cost", log2=True), y=SHARE)))
    assert circles(figure) == [
        pytest.approx((LEFT + 12, height_of(0.25)), abs=0.01),
        pytest.approx((RIGHT - 12, height_of(0.75)), abs=0.01),
    ]
    bar = figure.of_class("line", "error")[0]
    assert (bar.number("y1"), bar.number("y2")) == pytest.approx((height_of(0.2), height_of(0.3)), abs=0.01)
    assert table(figure) == [["cheap", "1", "25.0%", "20.0% to 30.0%"], ["dear", "4", "75.0%", "–"]]


def test_names_of_close_points_do_not_cover_each_other() -> None:
    points = [Point(name=f"method {index}", x=1 + 0.001 * index, y=0.5) for index in range(4)]
    axis = Axis(label="x", low=0.0, high=2.0)
    figure = parse(str(scatter_plot(points, title="T", x=axis, y=SHARE)))
    names = figure.of_class("text", "name")
    places = {(name.attributes.get("text-anchor"), name.attributes["y"]) for name in names}
    assert len(places) == 4


def test_a_calibrated_model_lies_on_the_diagonal_and_empty_bins_are_left_out() -> None:
    bins = [
        ReliabilityBin(predicted=0.0, observed=0.0, count=4),
        ReliabilityBin(predicted=0.5, observed=0.5, count=16, low=0.4, high=0.6),
        ReliabilityBin(predicted=0.9, observed=0.1, count=0),
    ]
    figure = parse(str(reliability_plot(bins, title="T")))
    (diagonal,) = figure.of_class("line", "reference")
    first, second = figure.of_class("circle", "mark")
    assert first.number("cx") == diagonal.number("x1")
    assert first.number("cy") == diagonal.number("y1")
    assert second.number("cx") == pytest.approx((diagonal.number("x1") + diagonal.number("x2")) / 2)
    assert second.number("cy") == pytest.approx((diagonal.number("y1") + diagonal.number("y2")) / 2)
    assert first.number("r") - 3 == pytest.approx((second.number("r") - 3) / 2)  # root of a quarter
    assert table(figure) == [["0.0%", "0.0%", "–", "4"], ["50.0%", "50.0%", "40.0% to 60.0%", "16"]]


def test_titles_and_names_are_escaped_and_pictures_named() -> None:
    hostile = '"><script>alert(1)</script>'
    markup = line_plot(
        [Line(name=hostile, x=[1], y=[0.5]), Line(name="b", x=[1], y=[0.5])],
        title=hostile,
        note=hostile,
        x=Axis(label=hostile),
        y=Axis(label=hostile),
    )
    assert "<script" not in markup
    figure = parse(str(markup))
    pictures = [svg for svg in figure.all("svg") if svg.attributes.get("role") == "img"]
    assert [picture.attributes["aria-label"].startswith(hostile) for picture in pictures] == [True]
    assert len(figure.all("details")) == 1


def test_numbers_at_the_edges_of_a_reliability_plot_stay_inside_the_picture() -> None:
    figure = parse(str(reliability_plot([ReliabilityBin(predicted=1.0, observed=1.0, count=1)], title="T")))
    (svg,) = figure.all("svg")
    width = float(svg.attributes["viewbox"].split()[2])
    to_the_right = {"middle": 0.5, "end": 0.0}
    ends = [
        label.number("x")
        + 7.5 * len(label.text) * to_the_right.get(label.attributes.get("text-anchor", ""), 1.0)
        for label in figure.all("text")
    ]
    assert len(ends) > 10
    assert max(ends) <= width

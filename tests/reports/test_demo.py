from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from tests.reports.made_up import localisation, policy
from tests.reports.pages import Element, assert_self_contained, parse

from stepcredit.reports.demo import headline, render_demo
from stepcredit.reports.examples import Example, ExampleStep
from stepcredit.reports.summary import DemoSummary, TrainingData
from stepcredit.stats import Interval


def full(tmp_path: Path) -> DemoSummary:
    (tmp_path / "prm").mkdir()
    (tmp_path / "prm" / "train_log.jsonl").write_text(
        '{"step": 5, "loss": 0.6543}\n{"step": 6, "heldout_auc": 0.8765}\n', encoding="utf-8"
    )
    return DemoSummary(
        seed=42,
        policies={"strong": policy(0.002), "weak": policy(0.001), "mid": policy()},
        settings={"training": {"beta": 0.5, "lora_alpha": None, "keep_best": True}},
        training=TrainingData(num_problems=1000, num_responses=8000, correct_share=0.3917),
        examples=(
            Example(
                prompt="8+5=",
                steps=(ExampleStep(text="8+5=9\n", reward=-2.24), ExampleStep(text="#9", reward=0.13)),
                answer="3",
                prediction="9",
                correct=False,
                first_wrong_step=0,
            ),
        ),
        commands=("stepcredit train a.jsonl --out <prm>",),
        versions={"torch": "2.13.0"},
        seconds={"sampling": 30.4, "training": 95.0, "together": 101.0},
        files={"prm/": "the reward model"},
        git_commit="0123456789abcdef",
        finished="2026-01-02T03:04:05Z",
    )


def table_rows(document: Element, name: str) -> dict[str, list[str]]:
    """Row name to cells of the accuracy table of a policy."""
    (panel,) = document.all("div", lambda element: element.attributes.get("data-tab") == name)
    (table,) = panel.of_class("table", "measures")
    body = table.all("tbody")[0]
    return {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in body.all("tr")}


def test_the_report_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    assert_self_contained(render_demo(full(tmp_path), tmp_path))


def test_the_headline_has_the_numbers_of_the_policy_it_was_trained_on(tmp_path: Path) -> None:
    document = parse(render_demo(full(tmp_path), tmp_path))
    # lowest step at n = 16: 0.3 + 3 * 0.05 + 2 * 0.011; majority: 0.3 + 0.05 + 2 * 0.011
    assert "16 responses" in document.all("h1")[0].text
    assert "47.2%" in document.all("h1")[0].text
    assert "37.2%" in document.all("h1")[0].text
    (figures,) = document.of_class("dl", "figures")
    assert figures.all("dd")[0].text == "+12.3 pts3.2 to 23.4"  # stored the other way round
    assert figures.all("dd")[1].text == "48.3%38.3 to 58.3"
    assert figures.all("dd")[2].text == "0.97530.9600 to 0.9800"
    assert figures.all("dd")[3].text == "76.5%70.0 to 80.0"


def test_the_table_holds_every_chooser_at_every_n(tmp_path: Path) -> None:
    rows = table_rows(parse(render_demo(full(tmp_path), tmp_path)), "weak")
    assert len(rows) == 6
    lowest = next(cells for name, cells in rows.items() if name.startswith("Implicit PRM, lowest step"))
    assert lowest == ["45.1%35.1 to 55.1", "46.2%36.2 to 56.2", "47.3%37.3 to 57.3", "48.4%38.4 to 58.4"]
    single = next(cells for name, cells in rows.items() if name.startswith("One response"))
    assert single == ["30.1%20.1 to 40.1", "", "", ""]
    oracle = next(cells for name, cells in rows.items() if name.startswith("Oracle"))
    assert oracle[3] == "33.4%23.4 to 43.4"


def test_the_best_chooser_stands_out_and_the_oracle_does_not_compete(tmp_path: Path) -> None:
    summary = full(tmp_path)
    winning_oracle = tuple(
        replace(row, accuracy=0.99) if row.method == "pass" and row.n > 1 else row
        for row in summary.policies["mid"].results
    )
    mid = replace(summary.policies["mid"], results=winning_oracle)
    document = parse(render_demo(replace(summary, policies={"mid": mid}), tmp_path))
    assert [cell.text[:5] for cell in document.of_class("td", "best")] == ["51.1%", "52.2%", "53.3%"]


def test_every_number_of_the_summary_is_on_the_page(tmp_path: Path) -> None:
    text = parse(render_demo(full(tmp_path), tmp_path)).all("main")[0].text
    for shown in (
        *("173 problems", "64 responses", "5.2 of them distinct"),  # 5.25 rounds to even
        *("0.9753", "0.6789", "76.5%", "13.6%", "70 steps", "30 steps"),
        *("8,000", "1,000", "39.2%", "0.654", "0.876"),
        *("−2.24", "+0.13", "8+5=9", "first wrong"),
        *("seed42", "2026-01-02 03:04:05", "0123456789ab", "torch2.13.0"),
        *("30 s", "1 min 35 s", "1 min 41 s", "beta0.5", "lora alphanone", "keep bestyes"),
        *("stepcredit train a.jsonl --out <prm>", "prm/the reward model"),
        *("weighted-sigmoid", "55.0%"),
    ):
        assert shown in text, shown


def test_policies_come_in_one_order_and_unknown_ones_last(tmp_path: Path) -> None:
    summary = full(tmp_path)
    policies = {"other": policy(), **summary.policies}
    document = parse(render_demo(replace(summary, policies=policies), tmp_path))
    panels = document.all("div", lambda element: "data-tab" in element.attributes)
    assert [panel.attributes["data-tab"] for panel in panels] == ["mid", "weak", "strong", "other"]
    assert len({panel.attributes["id"] for panel in panels}) == 4


def test_with_few_responses_the_headline_is_about_as_many_as_there_are(tmp_path: Path) -> None:
    few = replace(policy(), results=tuple(row for row in policy().results if row.n < 16), comparisons=())
    assert headline(few).startswith("Picking among 4 responses")
    document = parse(render_demo(replace(full(tmp_path), policies={"mid": few}), tmp_path))
    assert len(document.of_class("dl", "figures")[0].all("dd")) == 2  # no comparison, and no larger n


def test_a_policy_without_a_wrong_step_has_no_auc(tmp_path: Path) -> None:
    nan = Interval(float("nan"), float("nan"), float("nan"))
    clean = replace(policy(), steps=localisation(nan))
    summary = replace(full(tmp_path), policies={"mid": clean})
    assert summary.to_json()["policies"]["mid"]["localisation"]["auc"] is None
    assert_self_contained(render_demo(summary, tmp_path))


def test_headings_go_down_one_level_at_a_time_and_sections_have_names(tmp_path: Path) -> None:
    document = parse(render_demo(full(tmp_path), tmp_path))
    main = document.all("main")[0]
    order: list[int] = []

    def collect(element: Element) -> None:
        for child in element.children:
            if isinstance(child, Element):
                if child.name in ("h1", "h2", "h3", "h4"):
                    order.append(int(child.name[1]))
                collect(child)

    collect(main)
    assert order[0] == 1
    assert order.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(order))
    ids = [
        element.attributes["id"]
        for name in ("section", "h2", "div")
        for element in document.all(name)
        if "id" in element.attributes
    ]
    assert len(ids) == len(set(ids))
    links = [link.attributes["href"][1:] for link in document.all("nav")[0].all("a")]
    assert set(links) <= set(ids)
    for section in main.all("section", lambda element: "aria-labelledby" in element.attributes):
        assert section.attributes["aria-labelledby"] in ids


def test_pictures_have_names_and_what_scrolls_can_be_reached_by_keyboard(tmp_path: Path) -> None:
    document = parse(render_demo(full(tmp_path), tmp_path))
    for picture in document.all("svg"):
        named = picture.attributes.get("role") == "img" and picture.attributes.get("aria-label")
        assert named or picture.attributes.get("aria-hidden") == "true"
    for area in document.of_class("div", "scroll"):
        assert area.attributes["tabindex"] == "0"
        assert area.attributes["role"] == "region"
        assert area.attributes["aria-label"]

"""The page in a real browser: what is pasted is scored and shown as text; nothing comes from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from tests.serving.conftest import PROMPT, RESPONSES, lab_scorer, running

from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.page import CONTENT_POLICY, page
from stepcredit.serving.service import Service

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    batchers = {
        name: Batcher(lab_scorer(), batch_tokens=4096, queue_tokens=1 << 16) for name in ("lab", "other")
    }
    service = Service(batchers, ServerOptions())
    with running(make_app(service)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


class _Tab:
    """A page, with every request that it made and every complaint that it had."""

    def __init__(self, browser: Any, address: str, *, width: int = 1200, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.locator("#model option").first.wait_for(state="attached")

    def score(self, *solutions: str, prompt: str = PROMPT) -> None:
        self.page.fill("#prompt", prompt)
        boxes = self.page.locator("#solutions textarea")
        for place, solution in enumerate(solutions):
            if place:
                self.page.click("#add")
            boxes.nth(place).fill(solution)
        boxes.nth(len(solutions) - 1).press("Control+Enter")
        # The page's own policy forbids evaluated scripts, so the wait is for what a person would see.
        self.page.locator("article, #problem:not(:empty)").first.wait_for()


def test_solutions_are_ranked_and_each_step_has_its_reward(browser: Any, address: str) -> None:
    tab = _Tab(browser, address)
    tab.score(*RESPONSES[:2])
    rewards = tab.page.locator("article .reward").all_inner_texts()
    numbers = [float(text.removeprefix("reward ").replace("−", "-")) for text in rewards]
    assert numbers == sorted(numbers, reverse=True)
    steps = tab.page.locator("article").first.locator("li")
    assert steps.count() == 4
    assert set(steps.locator(".text").all_inner_texts()) >= {"7*8=6", "6+5=1"}
    assert tab.page.locator("article svg polyline").count() == 2
    tab.page.locator("summary").first.click()
    assert tab.page.locator("article").first.locator(".token").count() == 21
    assert tab.complaints == []
    assert {url.startswith(address) for url in tab.requests} == {True}


def test_two_models_stand_side_by_side(browser: Any, address: str) -> None:
    tab = _Tab(browser, address)
    tab.page.select_option("#beside", "other")
    tab.score(RESPONSES[0])
    assert tab.page.locator("#results h2").all_inner_texts() == ["lab", "other"]
    assert "against the other model" in tab.page.locator("article h3").first.inner_text()
    left, right = (tab.page.locator("#results section").nth(n).bounding_box() for n in (0, 1))
    assert right["x"] > left["x"] + left["width"] - 1


def test_two_models_are_compared_step_by_step(browser: Any, address: str) -> None:
    tab = _Tab(browser, address)
    tab.page.select_option("#beside", "other")
    tab.score(RESPONSES[0])
    differences = tab.page.locator("article li .difference").all_inner_texts()
    assert differences == ["0.000"] * 8  # Both are the same model, with four steps each.


def test_everything_can_be_done_with_the_keyboard(browser: Any, address: str) -> None:
    tab = _Tab(browser, address)
    keyboard = tab.page.keyboard

    def move_to(selector: str) -> None:
        for _ in range(20):
            if tab.page.locator(selector).first.evaluate("(one) => one === document.activeElement"):
                return
            keyboard.press("Tab")
        raise AssertionError(f"{selector} is not reached")

    move_to("#prompt")
    keyboard.type(PROMPT)
    move_to("#solutions textarea")
    keyboard.type("7*8=6")
    move_to("#add")
    keyboard.press("Enter")
    keyboard.type("7*8=5")  # The new solution has the focus.
    move_to("#go")
    keyboard.press("Enter")
    tab.page.locator("article").first.wait_for()
    assert tab.page.locator("article").count() == 2
    move_to("summary")
    keyboard.press("Enter")
    assert tab.page.locator(".token").first.is_visible()
    assert tab.complaints == []


HOSTILE = "<img src=x onerror=alert(1)><script>document.title='taken'</script>\n#8"


def test_hostile_text_stays_text(browser: Any, address: str) -> None:
    tab = _Tab(browser, address)
    tab.score(HOSTILE, prompt="<b>1+1=</b>")
    if tab.page.locator("article").count():
        assert HOSTILE.splitlines()[0] in tab.page.locator("article").inner_text()
    assert tab.page.title() == "stepcredit"
    assert tab.page.locator("#results img, #results script, #results b").count() == 0


def test_a_refusal_is_shown(browser: Any, address: str) -> None:
    tab = _Tab(browser, address)
    tab.score("9" * 300)
    assert "responses.0" in tab.page.locator("#problem").inner_text()


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_sticks_out_and_the_theme_follows_the_system(width: int, browser: Any, address: str) -> None:
    tab = _Tab(browser, address, width=width, scheme="dark")
    tab.score(*RESPONSES[:2])
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 25)"
    tab.page.click("#theme")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 249, 246)"
    sizes = tab.page.evaluate(
        "[...document.querySelectorAll('svg text')].map((text) => text.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 10


def test_the_page_needs_nothing_from_outside() -> None:
    assert "http://" not in page().replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page()
    assert "default-src 'none'" in CONTENT_POLICY
    assert "unsafe" not in CONTENT_POLICY

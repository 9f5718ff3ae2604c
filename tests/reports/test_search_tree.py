"""The page of a search: what was kept, cut and chosen can be seen, and texts stay texts."""

from __future__ import annotations

import re
from typing import Any

from stepcredit.reports import search_tree
from stepcredit.reports.search_tree import render_search


def _node(number: int, parent: int | None, text: str, reward: float | None, fate: str) -> dict[str, Any]:
    return {"id": number, "parent": parent, "text": text, "reward": reward, "worth": reward, "fate": fate}


NODES = [
    _node(0, None, "", None, "kept"),
    _node(1, 0, "good step\n", 2.0, "kept"),
    _node(2, 0, "bad step\n", -2.0, "cut"),
    _node(3, 0, "bad step\n", -2.0, "cut"),
    _node(4, 1, "the end", 1.0, "chosen"),
    _node(5, 1, "another end", 0.5, "candidate"),
]


def _tree(nodes: list[dict[str, Any]] = NODES, prompt: Any = "1+1=") -> dict[str, Any]:
    return {
        "prompt_id": "p",
        "prompt": prompt,
        "answer": "2",
        "generated_tokens": 30,
        "scored_tokens": 20,
        "nodes": nodes,
    }


def _page(*trees: dict[str, Any]) -> str:
    return render_search(trees, title="Search", strategy="Beam, width 4", scorer="prm")


def _item(page: str, text: str) -> tuple[str, str]:
    """What became of the step with a text, and the side of its colour."""
    match = re.search(
        rf'<li class="(\w+)">\s*<div class="node tint (\w*)"[^>]*>\s*<span class="text">{text}<', page
    )
    assert match, text
    return match[1], match[2]


def test_each_step_shows_its_reward_and_what_became_of_it() -> None:
    page = _page(_tree())
    good, bad = _item(page, "good step"), _item(page, "bad step")
    assert (good[0], bad[0]) == ("chosen", "cut")
    assert good[1] != bad[1]
    assert _item(page, "the end")[0] == "chosen"
    assert _item(page, "another end")[0] == "candidate"
    assert page.count("✓ chosen") == 1
    assert "<b>+2.00</b>" in page
    assert "5 steps drawn, 2 cut, 30 tokens" in page


def test_equal_steps_are_one_node_with_a_count() -> None:
    page = _page(_tree())
    assert page.count("bad step") == 1
    assert ">×2<" in page


def test_a_large_tree_is_shown_without_what_was_cut(monkeypatch: Any) -> None:
    monkeypatch.setattr(search_tree, "_MOST_NODES", 3)
    page = _page(_tree())
    assert "what was cut is left out" in page
    assert "bad step" not in page
    assert "good step" in page


def test_hostile_text_stays_text() -> None:
    hostile = "<script>alert(1)</script>"
    nodes = [NODES[0], _node(1, 0, f'{hostile}" onload="x\n', 1.0, "chosen")]
    page = _page(_tree(nodes, prompt=[{"role": "user", "content": hostile}]))
    assert hostile not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2


def test_a_search_that_drew_nothing_says_so() -> None:
    assert "Nothing was drawn." in _page(_tree(NODES[:1]))
    assert "There are no searches to show." in _page()


def test_a_tree_deeper_than_can_be_nested_is_shown_up_to_a_level() -> None:
    chain = [_node(n, n - 1, f"step {n}\n", 1.0, "kept") for n in range(1, 2000)]
    chain[-1]["fate"] = "chosen"
    page = _page(_tree([NODES[0], *chain]))
    assert "step 100<" in page
    assert "step 101<" not in page
    assert "✓ chosen" not in page
    assert "The tree is deep: 1,899 steps at its ends are left out." in page
    assert "The tree is deep" not in _page(_tree())

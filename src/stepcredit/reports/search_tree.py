"""A search as a picture: steps as nodes coloured by reward, what was kept, what was cut, what was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.conversations import content_text
from stepcredit.reports.page import render_page
from stepcredit.tints import ColourScale, Tint, scale_for

_MOST_NODES = 1500
"""Larger trees are shown without what was cut, which is then counted."""

_MOST_LEVELS = 100
"""What is deeper is left out and counted: Python cannot nest as far as a search may go."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A step of a tree as the template shows it.

    Attributes:
        text: What was drawn, without its line end.
        reward: Of the step; ``None`` where it was not scored.
        worth: What the search compared.
        fate: What became of it; ``chosen`` also for the steps that lead to the choice.
        is_choice: Whether the chosen response ends with it.
        copies: How many equal continuations are shown as this one.
    """

    text: str
    reward: float | None
    worth: float | None
    tint: Tint
    fate: str
    is_choice: bool
    copies: int
    children: tuple[NodeView, ...]


@dataclass(frozen=True, slots=True)
class TreeView:
    """A problem's search as the template shows it."""

    prompt_id: str
    prompt: str
    answer: str | None
    chosen: str | None
    num_nodes: int
    num_cut: int
    num_left_out: int
    num_too_deep: int
    generated_tokens: int
    roots: tuple[NodeView, ...]


def render_search(trees: Sequence[Mapping[str, Any]], *, title: str, strategy: str, scorer: str) -> str:
    """A page that shows searches.

    Args:
        trees: Rows of a tree file, as :class:`stepcredit.searching.Tree` writes them.

    Returns:
        A complete HTML document.
    """
    rewards = (node["reward"] for tree in trees for node in tree["nodes"] if node["reward"] is not None)
    scale = scale_for(rewards)
    return render_page(
        "search.html",
        title=title,
        kind="search",
        strategy=strategy,
        scorer=scorer,
        scale=scale,
        trees=[_tree_view(tree, scale) for tree in trees],
    )


def _tree_view(tree: Mapping[str, Any], scale: ColourScale) -> TreeView:
    nodes = {node["id"]: node for node in tree["nodes"]}
    children: dict[int, list[int]] = {}
    for node in tree["nodes"]:
        if node["parent"] is not None:
            children.setdefault(node["parent"], []).append(node["id"])
    chosen = next((node["id"] for node in tree["nodes"] if node["fate"] == "chosen"), None)
    path, prompt = set(_path(nodes, chosen)), tree["prompt"]
    num_cut = sum(node["fate"] in ("cut", "lookahead") for node in tree["nodes"])
    left_out = num_cut if len(nodes) > _MOST_NODES else 0

    levels = _levels(tree["nodes"])

    def view(ids: Sequence[int]) -> tuple[NodeView, ...]:
        groups: dict[tuple[str, str], list[int]] = {}
        for node_id in ids:
            node = nodes[node_id]
            if levels[node_id] > _MOST_LEVELS or (left_out and node["fate"] in ("cut", "lookahead")):
                continue
            # Equal leaves are one node with a count; what goes on or was chosen keeps its place.
            alike = node["fate"] if node_id not in children and node_id not in path else str(node_id)
            groups.setdefault((node["text"], alike), []).append(node_id)
        return tuple(make(members) for members in groups.values())

    def make(members: Sequence[int]) -> NodeView:
        node = nodes[members[0]]
        return NodeView(
            text=node["text"].rstrip("\r\n"),
            reward=node["reward"],
            worth=node["worth"],
            tint=Tint("", 0) if node["reward"] is None else scale.tint(node["reward"]),
            fate="chosen" if members[0] in path else node["fate"],
            is_choice=members[0] == chosen,
            copies=len(members),
            children=view(children.get(members[0], [])),
        )

    return TreeView(
        prompt_id=tree["prompt_id"],
        prompt=prompt if isinstance(prompt, str) else content_text(prompt[-1]),
        answer=tree["answer"],
        chosen=None
        if chosen is None
        else "".join(nodes[node]["text"] for node in reversed([*_path(nodes, chosen)])),
        num_nodes=len(nodes) - 1,
        num_cut=num_cut,
        num_left_out=left_out,
        num_too_deep=sum(level > _MOST_LEVELS for level in levels.values()),
        generated_tokens=tree["generated_tokens"],
        roots=view(children.get(0, [])),
    )


def _levels(nodes: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """How many steps lead to each node; a node stands after its parent."""
    levels: dict[int, int] = {}
    for node in nodes:
        levels[node["id"]] = 0 if node["parent"] is None else levels[node["parent"]] + 1
    return levels


def _path(nodes: Mapping[int, Mapping[str, Any]], node: int | None) -> Iterator[int]:
    """From a node up to the root."""
    while node is not None:
        yield node
        node = nodes[node]["parent"]

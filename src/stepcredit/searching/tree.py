"""What a search has drawn for one problem: a tree of partial responses, each with its score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stepcredit.types import Prompt, ResponseScore

Fate = Literal["open", "kept", "cut", "candidate", "chosen", "lookahead"]
"""``open``: just drawn. ``kept``: gone on from. ``cut``: given up. ``candidate``: a whole response that the
final choice was among. ``chosen``: that choice. ``lookahead``: drawn only to judge the step before it."""

WORTHS = ("value", "min", "last", "mean")
"""What a partial response is worth: its value (implicit: q_t), or an aggregate of its step rewards."""


@dataclass(eq=False, kw_only=True)
class Node:
    """A partial response: everything drawn from the root up to here.

    Attributes:
        id: From 0, in the order in which nodes were drawn; the root is 0.
        parent: The node that it continues; ``None`` for the root.
        index: Which sample of the parent's text it is: decides what is drawn.
        response: The text so far.
        token_ids: Its tokens as drawn, where the generator gives them.
        tokenizer: Hash of the tokenizer that they belong to.
        ended: Whether the policy ended its turn here.
        cut_off: Whether the limit of tokens was reached.
        num_tokens: Tokens drawn at this node.
        score: What the scorer says of ``response``; ``None`` where it was not asked.
        worth: The number that the search compares; of the score unless a look-ahead replaced it.
        fate: What became of it.
    """

    id: int
    parent: Node | None = None
    index: int = 0
    response: str = ""
    token_ids: tuple[int, ...] | None = ()
    tokenizer: str | None = None
    ended: bool = False
    cut_off: bool = False
    num_tokens: int = 0
    score: ResponseScore | None = None
    worth: float = 0.0
    fate: Fate = "open"

    @property
    def whole(self) -> bool:
        """Whether nothing can be drawn after it."""
        return self.ended or self.cut_off

    @property
    def depth(self) -> int:
        """Draws from the root to here."""
        return sum(1 for _ in self._path()) - 1

    @property
    def length(self) -> int:
        """Tokens drawn from the root to here."""
        return sum(node.num_tokens for node in self._path())

    def _path(self) -> Iterator[Node]:
        """This node, its parent and so on to the root: as many as the search was deep, so no recursion."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    @property
    def text(self) -> str:
        """What was drawn at this node."""
        return self.response[len(self.parent.response) :] if self.parent is not None else self.response

    @property
    def reward(self) -> float:
        """What this node's own text added: the rewards of the steps that it added to or changed."""
        own = _sum_of_rewards(self.score)
        return own - (0.0 if self.parent is None else _sum_of_rewards(self.parent.score))


def _sum_of_rewards(score: ResponseScore | None) -> float:
    return 0.0 if score is None else sum(step.reward for step in score.steps)


@dataclass(kw_only=True)
class Tree:
    """A search of one problem.

    Attributes:
        nodes: All that was drawn, the root first.
        generated_tokens: Drawn in all, also what was given up.
        scored_tokens: Of responses, read by the scorer for the first time: what a partial response shares
            with the one that it continues counts once, and so does a text that was drawn several times.
        scored: Texts that were scored so far, and whether they had ended.
    """

    prompt: Prompt
    nodes: list[Node] = field(default_factory=lambda: [Node(id=0, fate="kept")])
    generated_tokens: int = 0
    scored_tokens: int = 0
    scored: set[tuple[str, bool]] = field(default_factory=set)

    @property
    def root(self) -> Node:
        """The empty response."""
        return self.nodes[0]

    @property
    def candidates(self) -> list[Node]:
        """Whole responses that the final choice was among, the chosen one first, then as drawn."""
        nodes = [node for node in self.nodes if node.fate in ("candidate", "chosen")]
        return sorted(nodes, key=lambda node: node.fate != "chosen")

    def to_json(self) -> dict[str, Any]:
        """A row of the tree file."""
        return {
            "prompt_id": self.prompt.id,
            "prompt": self.prompt.prompt,
            "answer": self.prompt.answer,
            "generated_tokens": self.generated_tokens,
            "scored_tokens": self.scored_tokens,
            "nodes": [_node_to_json(node) for node in self.nodes],
        }


def _node_to_json(node: Node) -> Mapping[str, Any]:
    return {
        "id": node.id,
        "parent": None if node.parent is None else node.parent.id,
        "index": node.index,
        "text": node.text,
        "num_tokens": node.num_tokens,
        "ended": node.ended,
        "cut_off": node.cut_off,
        "reward": node.reward if node.score is not None else None,
        "worth": node.worth if node.score is not None else None,
        "fate": node.fate,
    }


def worth_of(score: ResponseScore, name: str) -> float:
    """A partial response's worth by its score, one of :data:`WORTHS`."""
    return score.steps[-1].value if name == "value" else score.aggregates[name]

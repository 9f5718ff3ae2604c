"""Runs searches of many problems side by side.

Their draws go to the generator in one batch, their nodes to the scorer in one window. What a search draws
depends on (seed, problem, index, text so far) only, so neither the number of problems that run together nor
their order changes anything, but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stepcredit.errors import UserError
from stepcredit.generators.records import rollout_id
from stepcredit.searching.strategy import Draw, Running, SearchSettings, Strategy, spent
from stepcredit.searching.tree import Node, Tree, worth_of
from stepcredit.types import (
    GenerationFailure,
    GenerationRequest,
    Generator,
    Prompt,
    Rollout,
    Sampling,
    Scorer,
)

NOT_SCORED = float("-inf")
"""Worth of a partial response that the scorer cannot read."""


@dataclass(frozen=True, slots=True)
class SearchFailure:
    """A problem that could not be searched, with the reason; the others go on."""

    prompt_id: str
    reason: str


class _Search:
    """One problem's search under way, round after round while its budget lasts."""

    def __init__(self, prompt: Prompt, strategy: Strategy, settings: SearchSettings) -> None:
        self.tree = Tree(prompt=prompt)
        self._strategy, self._settings = strategy, settings
        self._first_index = 0
        self._running: Running = strategy(self.tree, settings, 0)
        self.draw: Draw | None = next(self._running)

    def resume(self, nodes: list[Node]) -> None:
        """Hand over what was drawn; ``draw`` is then the next request, or ``None`` at the end."""
        try:
            self.draw = self._running.send(nodes)
        except StopIteration:
            self.draw = self._next_round()

    def _next_round(self) -> Draw | None:
        if self._settings.budget is None or spent(self.tree, self._settings):
            return None
        self._first_index += self._settings.width
        self._running = self._strategy(self.tree, self._settings, self._first_index)
        return next(self._running)


class Searcher:
    """Searches problems with one strategy.

    Args:
        generator: Draws steps; its responses must be continuable.
        scorer: Says what partial and whole responses are worth.
        sampling: How tokens are drawn; ``max_new_tokens`` is a whole response's limit.
        step_ends: Texts at which a step ends.
        problems_at_once: How many run side by side; it changes nothing that is found.
    """

    def __init__(
        self,
        generator: Generator,
        scorer: Scorer,
        strategy: Strategy,
        settings: SearchSettings,
        sampling: Sampling,
        step_ends: tuple[str, ...],
        *,
        problems_at_once: int = 32,
    ) -> None:
        self.generator, self.scorer = generator, scorer
        self.strategy, self.settings = strategy, settings
        self._whole = replace(sampling, seed=settings.seed)
        self._step = replace(self._whole, stop=step_ends, keep_stop=True)
        self._problems_at_once = problems_at_once
        self.num_unscored = 0

    def search(self, prompts: Iterable[Prompt]) -> Iterator[Tree | SearchFailure]:
        """Yield each problem's tree as it is done; its candidates are marked, none is chosen yet."""
        waiting = iter(prompts)
        active: list[_Search] = []
        while True:
            while len(active) < self._problems_at_once and (prompt := next(waiting, None)) is not None:
                active.append(_Search(prompt, self.strategy, self.settings))
            if not active:
                return
            failed = self._advance(active)
            for search in list(active):
                reason = failed.get(search.tree.prompt.id)
                if reason is not None:
                    yield SearchFailure(search.tree.prompt.id, reason)
                elif search.draw is None:
                    yield search.tree
                else:
                    continue
                active.remove(search)

    def _advance(self, active: Sequence[_Search]) -> dict[str, str]:
        """Draw and score what every search asks for; what could not be drawn, by problem."""
        drawn: dict[str, Rollout] = {}
        failed: dict[str, str] = {}
        for result in self.generator.generate(_requests(active, self._sampling)):
            if isinstance(result, GenerationFailure):
                failed.setdefault(result.prompt_id, result.reason)
            else:
                drawn[result.id] = result
        fresh: list[tuple[_Search, list[Node]]] = []
        rollouts: list[tuple[Tree, Node, Rollout]] = []
        for search in active:
            if search.tree.prompt.id in failed:
                continue
            assert search.draw is not None
            nodes: list[Node] = []
            paid: dict[str, int] = {}
            for parent, index in zip(search.draw.parents, search.draw.indices, strict=True):
                rollout = drawn[_request_id(search.tree.prompt, parent, index)]
                nodes.append(self._node(search.tree, search.draw, parent, index, rollout))
                paid[rollout.id] = nodes[-1].num_tokens  # equal texts are continued once
                if search.draw.scored:
                    rollouts.append((search.tree, nodes[-1], rollout))
            search.tree.generated_tokens += sum(paid.values())
            fresh.append((search, nodes))
        self._score(rollouts)
        for search, nodes in fresh:
            search.resume(nodes)
        return failed

    def _sampling(self, draw: Draw) -> Sampling:
        sampling = self._whole if draw.whole else self._step
        return replace(sampling, temperature=0.0) if draw.greedy else sampling

    def _node(self, tree: Tree, draw: Draw, parent: Node, index: int, rollout: Rollout) -> Node:
        text = rollout.response[len(parent.response) :]
        step_ended = not draw.whole and any(end in text for end in self._step.stop)
        num_tokens = rollout.extras.get("num_generated_tokens")
        if num_tokens is None:
            raise UserError(
                "the server does not say how many tokens it generated (usage.completion_tokens), so neither "
                "lengths nor budgets of a search can be kept",
                where=rollout.policy,
                hint="use another server, or --generator transformers",
            )
        node = Node(
            id=len(tree.nodes),
            parent=parent,
            index=index,
            response=rollout.response,
            token_ids=rollout.response_token_ids,
            tokenizer=rollout.tokenizer,
            ended=rollout.finish_reason == "stop" and not step_ended,
            cut_off=rollout.finish_reason == "length",
            num_tokens=int(num_tokens),
        )
        # A limit that is reached with the end of a step leaves no room for another one.
        if not node.whole and (node.length >= self._whole.max_new_tokens or self._is_full(rollout)):
            node.cut_off = True
        tree.nodes.append(node)
        return node

    def _is_full(self, rollout: Rollout) -> bool:
        """Whether what was read and drawn fills the policy's context, where the generator knows it."""
        context: int | None = getattr(self.generator, "context", None)
        counted = (rollout.extras.get(f"num_{kind}_tokens") or 0 for kind in ("prompt", "generated"))
        return context is not None and sum(counted) >= context

    def _score(self, drawn: Sequence[tuple[Tree, Node, Rollout]]) -> None:
        partial = [
            replace(
                rollout,
                id=f"{rollout.prompt_id}:{number}",
                finish_reason="stop" if node.ended else "length",
            )
            for number, (_, node, rollout) in enumerate(drawn)
        ]
        unread: set[str] = set()
        scores = {
            score.id: score
            for score in self.scorer.score_all(partial, on_skip=lambda error: unread.add(str(error.where)))
        }
        self.num_unscored += len(unread)
        for rollout, (tree, node, _) in zip(partial, drawn, strict=True):
            node.score = scores.get(rollout.id)
            if node.score is None:
                node.worth = NOT_SCORED
                continue
            node.worth = worth_of(node.score, self.settings.worth)
            if (node.response, node.ended) not in tree.scored:
                tree.scored.add((node.response, node.ended))
                read = max(0, node.score.num_tokens - _read_before(node))
                tree.scored_tokens += node.score.judge_tokens or read


def _read_before(node: Node) -> int:
    """Tokens of the response that the scorer read with the partial response that it continues."""
    parent = node.parent
    while parent is not None and parent.score is None:
        parent = parent.parent
    return 0 if parent is None or parent.score is None else parent.score.num_tokens


def _requests(active: Sequence[_Search], sampling_of: object) -> Iterator[GenerationRequest]:
    """One request for each text that is continued."""
    assert callable(sampling_of)
    for search in active:
        assert search.draw is not None
        sampling = sampling_of(search.draw)
        by_text: dict[str, tuple[Node, dict[int, None]]] = {}
        for parent, index in zip(search.draw.parents, search.draw.indices, strict=True):
            by_text.setdefault(parent.response, (parent, {}))[1][index] = None
        for text, (parent, indices) in by_text.items():
            yield GenerationRequest(
                prompt=search.tree.prompt,
                indices=tuple(indices),
                sampling=replace(sampling, max_new_tokens=sampling.max_new_tokens - parent.length),
                response_prefix=text,
                response_prefix_ids=parent.token_ids if text else None,
            )


def _request_id(prompt: Prompt, parent: Node, index: int) -> str:
    request = GenerationRequest(
        prompt=prompt, indices=(index,), sampling=Sampling(), response_prefix=parent.response
    )
    return rollout_id(request, index)

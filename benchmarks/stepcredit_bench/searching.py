"""Search with state carried from step to step, beside reading every prefix anew.

Both sides search the same problems with the same random numbers, so they find the same trees but for
rounding. What passes through the policy, the reward model and its reference is counted by a hook on each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import load_tokenizer
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.keyvalues import PrefixStore
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.logprobs.growing import STORE_TOKENS
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.loading import chat_encoding
from stepcredit.searching import STRATEGIES, Searcher, SearchSettings, Tree
from stepcredit.steps import StepRule
from stepcredit.types import Sampling
from stepcredit_bench.processes import Side, SideReport, compare
from stepcredit_bench.workload import never_ends, random_model

if TYPE_CHECKING:
    from stepcredit.types import Scorer

LAB = "lab"
BETA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchWork:
    """What both sides search.

    Attributes:
        shape: ``lab``, the lab's models, or a name in :data:`~stepcredit_bench.workload.SHAPES` with random
            weights and the lab's vocabulary.
        strategy: Name in :data:`~stepcredit.searching.STRATEGIES`.
        num_problems: Problems of the lab.
        width: Of the search.
        expand: Continuations of each kept partial response.
        max_new_tokens: Limit of a response.
        seed: Of problems, draws and weights.
    """

    shape: str
    strategy: str = "beam"
    num_problems: int = 1
    width: int = 16
    expand: int = 4
    max_new_tokens: int = 64
    seed: int = 0


class SearchSide:
    """A policy, a reward model and its reference, and the search that they guide.

    Args:
        work: What is searched.
        keeps_state: Whether models keep what they have read.
    """

    def __init__(self, work: SearchWork, keeps_state: bool) -> None:
        self.work, self.keeps_state = work, keeps_state
        self.forwarded_tokens = 0

    def load(self) -> None:
        """Build the three models."""
        self.tokenizer: Any = load_tokenizer(policy_path("mid"))
        if self.work.shape == LAB:
            from stepcredit.checkpoints import load_model

            self.models = [load_model(policy_path(name)) for name in ("mid", "strong", "mid")]
        else:
            size = len(self.tokenizer)
            self.models = [
                random_model(self.work.shape, seed=self.work.seed + number, vocab_size=size)
                for number in range(3)
            ]
            never_ends(self.models[0], self.tokenizer.eos_token_id)
        for model in self.models:
            model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens = named["input_ids"] if "input_ids" in named else arguments[0]
        self.forwarded_tokens += tokens.numel()

    def warm_up(self) -> None:
        """Search one problem of another split."""
        self._search("train", 1)

    def prepare(self) -> None:
        """Nothing is kept from turn to turn."""
        self.forwarded_tokens = 0

    def run(self) -> dict[str, Any]:
        """Search; gives what was found, what it took, and what each node was worth."""
        trees = self._search("test", self.work.num_problems)
        return {
            "responses": [node.response for tree in trees for node in tree.nodes],
            "worths": [node.worth for tree in trees for node in tree.nodes],
            "generated_tokens": sum(tree.generated_tokens for tree in trees),
            "forwarded_tokens": self.forwarded_tokens,
        }

    def _search(self, split: str, num_problems: int) -> list[Tree]:
        work = self.work
        policy, prm, reference = self.models
        generator = TransformersGenerator(
            policy,
            self.tokenizer,
            name="policy",
            store=PrefixStore(STORE_TOKENS) if self.keeps_state else None,
        )
        policy_log_probs, reference_log_probs = (
            LocalTokenLogProbs(model, weights_hash=name)
            for model, name in ((prm, "prm"), (reference, "reference"))
        )
        encoding = chat_encoding(self.tokenizer, StepRule("newline"), None)
        scorer = ImplicitPRM(policy_log_probs, reference_log_probs, BETA, encoding)
        session: AbstractContextManager[Scorer] = (
            scorer.session() if self.keeps_state else nullcontext(scorer)
        )
        with session as guide:
            searcher = Searcher(
                generator,
                guide,
                STRATEGIES[work.strategy],
                SearchSettings(width=work.width, expand=work.expand, seed=work.seed),
                Sampling(temperature=1.0, max_new_tokens=work.max_new_tokens),
                ("\n",),
            )
            prompts = make_prompts(split, seed=work.seed, count=num_problems)
            trees = [tree for tree in searcher.search(prompts) if isinstance(tree, Tree)]
        return sorted(trees, key=lambda tree: tree.prompt.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBenchmark:
    """What each side took.

    Attributes:
        work: What was searched.
        threads: Threads of each side.
        sides: Reports: ``state`` and ``stateless``.
    """

    work: SearchWork
    threads: int
    sides: dict[str, SideReport]

    @property
    def speedup(self) -> float:
        """Seconds of the stateless side over those of the side with state."""
        return self.sides["stateless"].best_seconds / self.sides["state"].best_seconds

    @property
    def token_ratio(self) -> float:
        """Tokens that the stateless side passes through its models, over those of the side with state."""
        state, stateless = (self.sides[name].outcome["forwarded_tokens"] for name in ("state", "stateless"))
        return float(stateless / state)

    @property
    def same_trees(self) -> bool:
        """Whether every step that was drawn is the same on both sides."""
        state, stateless = (self.sides[name].outcome["responses"] for name in ("state", "stateless"))
        return bool(state == stateless)

    @property
    def largest_difference(self) -> float:
        """Of a node's worth between the sides, over the nodes that both have."""
        state, stateless = (self.sides[name].outcome["worths"] for name in ("state", "stateless"))
        return float(max(abs(ours - theirs) for ours, theirs in zip(state, stateless, strict=False)))


def run_search_benchmark(
    work: SearchWork, *, turns: int, threads: int, on_turn: Callable[[str, float], None]
) -> SearchBenchmark:
    """Search by turns, each side in its own process."""
    sides: dict[str, Callable[[], Side]] = {
        "state": partial(SearchSide, work, True),
        "stateless": partial(SearchSide, work, False),
    }
    return SearchBenchmark(
        work=work, threads=threads, sides=compare(sides, turns=turns, threads=threads, on_turn=on_turn)
    )

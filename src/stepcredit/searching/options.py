"""How a search goes: the strategy and its settings, as the command line shows them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from stepcredit.errors import UserError
from stepcredit.options import check_at_least_one, option
from stepcredit.searching.strategies import EXPANDING, STRATEGIES
from stepcredit.searching.strategy import SearchSettings
from stepcredit.searching.tree import WORTHS


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search strategy, width, depth and budget."""

    strategy: str = option("search strategy", default="beam", choices=tuple(STRATEGIES))
    width: int = option(
        "number of partial responses held at once: samples, beams times --expand, or particles", default=16
    )
    expand: int = option(
        "number of continuations of each kept partial response; must divide --width "
        f"({', '.join(EXPANDING)})",
        default=4,
    )
    depth: int = option(
        "largest number of steps; responses still open then are drawn to their end in one go", default=40
    )
    budget: int | None = option(
        "token budget per problem; when it runs out, open responses are finished without branching; when a "
        "search ends early, another starts and all candidates compete; default is one search",
        default=None,
        metavar="TOKENS",
    )
    worth: str = option(
        "how a partial response is judged: by its value (implicit: q_t), or by its lowest, last "
        "or mean step reward",
        default="value",
        choices=WORTHS,
    )
    softmax_temperature: float = option(
        "temperature of the weights exp(worth / temperature) of particles and votes", default=1.0
    )
    lookahead: int = option(
        "number of steps drawn greedily beyond each step to judge it (lookahead)", default=1
    )

    def __post_init__(self) -> None:
        check_at_least_one(self, "width", "expand", "depth", "budget", "lookahead")
        if self.strategy in EXPANDING and self.width % self.expand:
            raise UserError(
                f"{self.width} is not a multiple of --expand {self.expand}",
                where="--width",
                hint=f"use e.g. --width {self.expand * math.ceil(self.width / self.expand)}",
            )
        if not 0 < self.softmax_temperature < math.inf:
            raise UserError(
                f"must be above 0 and finite, got {self.softmax_temperature}", where="--softmax-temperature"
            )

    def settings(self, seed: int) -> SearchSettings:
        """As the strategies take them."""
        return SearchSettings(
            width=self.width,
            expand=self.expand,
            depth=self.depth,
            budget=self.budget,
            worth=self.worth,
            temperature=self.softmax_temperature,
            lookahead=self.lookahead,
            seed=seed,
        )

    def in_words(self) -> str:
        """For the head of a page."""
        words = [self.strategy.replace("-", " ").capitalize(), f"width {self.width}"]
        if self.strategy in EXPANDING:
            words.append(f"{self.expand} continuations of each kept step")
        if self.budget is not None:
            words.append(f"{self.budget:,} tokens per problem")
        return ", ".join([*words, f"by {self.worth}"])

    def determining(self) -> dict[str, Any]:
        """What decides the result, JSON-able, for a manifest."""
        return {"strategy": self.strategy, **asdict(self.settings(0))}

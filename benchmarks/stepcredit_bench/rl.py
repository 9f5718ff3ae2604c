"""What rewards cost in a step of GRPO: TRL's own trainer on the lab, with its reward function timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stepcredit.options import check_at_least_one, option
from stepcredit.wording import quantity

if TYPE_CHECKING:
    from stepcredit_bench.rewarding import StepTimes


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench rl``."""

    prompts: int = option("number of problems per step", default=8)
    responses: int = option("number of completions per problem", default=64)
    steps: int = option("number of steps that are timed, after one that is not", default=3)
    max_new_tokens: int = option("largest number of tokens per completion", default=64)
    threads: int | None = option("number of threads; default is all processors", default=None)
    seed: int = option("seed of problems and samples", default=0)

    def __post_init__(self) -> None:
        check_at_least_one(self, "prompts", "responses", "steps", "max_new_tokens", "threads")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What ``stepcredit bench rl`` prints.

    Attributes:
        steps: Times of each step.
        settings: The options.
    """

    steps: tuple[StepTimes, ...]
    settings: Mapping[str, Any]

    @property
    def share(self) -> float:
        """Share of the steps' wall-clock time that the rewards took."""
        return sum(step.reward_seconds for step in self.steps) / sum(step.seconds for step in self.steps)

    @property
    def cpu_share(self) -> float:
        """The same of processor time, which other work on the machine changes less."""
        return sum(step.reward_cpu_seconds for step in self.steps) / sum(
            step.cpu_seconds for step in self.steps
        )

    def to_json(self) -> dict[str, Any]:
        """Shares, and every step's own numbers."""
        return {
            **self.settings,
            "reward_share": self.share,
            "reward_cpu_share": self.cpu_share,
            "steps": [asdict(step) for step in self.steps],
        }

    def to_text(self) -> str:
        """A table of the steps and a line with the shares."""
        lines = [
            f"GRPO on the lab: {self.settings['prompts']} problems x {self.settings['responses']} "
            f"completions per step, {quantity(self.settings['threads'], 'thread')}",
            f"{'step':>4}{'seconds':>10}{'rewards':>10}{'processor':>11}{'rewards':>10}{'tokens':>10}",
        ]
        lines += [
            f"{number:>4}{step.seconds:>10.2f}{step.reward_seconds:>10.2f}{step.cpu_seconds:>11.2f}"
            f"{step.reward_cpu_seconds:>10.2f}{step.tokens:>10,}"
            for number, step in enumerate(self.steps, 1)
        ]
        lines.append(
            f"the rewards take {self.share:.1%} of a step's time, {self.cpu_share:.1%} of its processor time"
        )
        return "\n".join(lines)


def run(options: Options) -> Result:
    """Measure."""
    import os

    from stepcredit_bench.rewarding import time_steps

    threads = options.threads or os.cpu_count() or 1
    settings = asdict(options) | {"threads": threads}
    return Result(steps=time_steps(**settings), settings=settings)

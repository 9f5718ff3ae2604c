"""What decides how a run's rollouts are read: step rule, format, longest sequence, size of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepcredit.checkpoints import LoadOptions, load_config
from stepcredit.errors import UserError
from stepcredit.steps import StepRule, choose_rule
from stepcredit.training.config import TrainConfig
from stepcredit.types import Rollout


def choose_step_rule(config: TrainConfig, rollouts: Sequence[Rollout]) -> StepRule:
    """The rule of the configuration; ``auto`` becomes the one that fits the responses."""
    rule = StepRule.parse(config.step_rule)
    return choose_rule(rollout.response for rollout in rollouts) if rule.kind == "auto" else rule


def context_length(model: str | Path, config: TrainConfig, load: LoadOptions) -> int | None:
    """Most tokens of a sequence: as configured, at most what the model takes.

    Raises:
        UserError: More is asked for.
    """
    context = getattr(load_config(model, load).get_text_config(), "max_position_embeddings", None)
    if config.max_tokens is not None and context is not None and config.max_tokens > context:
        raise UserError(
            f"{config.max_tokens} is more than the model's context of {context} tokens",
            where="--max-tokens",
            hint="lower it, or use a model with a longer context",
        )
    return config.max_tokens or context


def default_tokens_per_forward(device_type: str) -> int:
    """On a CPU a small pass stays in its caches; an accelerator wants a large one."""
    return 2048 if device_type == "cpu" else 16384

"""Process rewards for trainers of policies: TRL, verl, and those that take one reward per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepcredit.rl.online import OnlinePRM, OnlineStepRewards
    from stepcredit.rl.prime import prime_advantages
    from stepcredit.rl.step_rewards import StepRewards
    from stepcredit.rl.trajectories import token_rewards

__all__ = ["OnlinePRM", "OnlineStepRewards", "StepRewards", "prime_advantages", "token_rewards"]

_HOMES = {
    "OnlinePRM": "online",
    "OnlineStepRewards": "online",
    "StepRewards": "step_rewards",
    "prime_advantages": "prime",
    "token_rewards": "trajectories",
}


def __getattr__(name: str) -> Any:
    """Import names on first use: only the online model needs the trainer."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stepcredit.rl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"stepcredit.rl.{_HOMES[name]}"), name)

"""verl's two doors for rewards: a reward manager, and a ``compute_score`` function (verl 0.9).

The manager sees token ids, so that it knows what was cut off, and gives a reward per token::

    reward.reward_manager.source=importlib
    reward.reward_manager.name=StepRewardManager
    reward.reward_manager.module.path=pkg://stepcredit.rl.verl
    +reward.reward_kwargs.prm=PRM

:func:`compute_score` sees text only, and takes every response for finished::

    reward.custom_reward_function.path=pkg://stepcredit.rl.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.prm=PRM

This module is the only one that imports verl.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from stepcredit.errors import UserError
from stepcredit.grading.registry import make_grader
from stepcredit.rl.step_rewards import StepRewards
from stepcredit.rl.verl_rewards import Trajectory, VerlRewards, VerlSettings, laid_out
from stepcredit.typed_values import typed_record

try:
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
except ImportError as error:
    raise UserError(
        f"verl's reward managers cannot be imported ({error})",
        where="stepcredit.rl.verl",
        hint="install verl 0.9 with its dependencies",
    ) from error


class StepRewardManager(RewardManagerBase):  # type: ignore[misc]
    """Process rewards beside verl's own score of the answer.

    Args:
        config: verl's; ``reward.reward_kwargs`` are fields of
            :class:`~stepcredit.rl.verl_rewards.VerlSettings`.
        compute_score: verl's function, or the custom one: the outcome.
        reward_router_address: Not used.
        reward_model_tokenizer: Not used.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,  # noqa: ARG002
        reward_model_tokenizer: Any = None,  # noqa: ARG002
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        settings = typed_record(
            VerlSettings, dict(config.reward.get("reward_kwargs") or {}), "reward.reward_kwargs"
        )
        self._rewards = VerlRewards(settings, tokenizer)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward of a trajectory: that of its last sequence, as verl's own managers have it."""
        item = data[-1:][0]
        trajectory = _trajectory(item)
        outcome = None
        if self._rewards.settings.outcome_weight:
            outcome = await self._outcome(item, trajectory)
        score, logged = await asyncio.get_running_loop().run_in_executor(
            None, self._rewards.score, trajectory, outcome
        )
        return {"reward_score": score, "reward_extra_info": dict(logged)}

    async def _outcome(self, item: Any, trajectory: Trajectory) -> float:
        fields = item.non_tensor_batch
        call = functools.partial(
            self.compute_score,
            data_source=fields["data_source"],
            solution_str=self.tokenizer.decode(list(trajectory.response_ids), skip_special_tokens=True),
            ground_truth=fields["reward_model"]["ground_truth"],
            extra_info={**(fields.get("extra_info") or {}), "num_turns": trajectory.num_turns},
        )
        if inspect.iscoroutinefunction(getattr(self.compute_score, "func", self.compute_score)):
            result = await call()
        else:
            result = await asyncio.get_running_loop().run_in_executor(None, call)
        return float(result["score"] if isinstance(result, Mapping) else result)

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: list[float]) -> torch.Tensor:
        """Token rewards where verl's advantages read them."""
        responses = data.batch["responses"]
        lengths = data.batch["attention_mask"][:, -responses.size(1) :].sum(dim=1).tolist()
        rows = torch.from_numpy(laid_out(scores, lengths, responses.size(1)))
        return rows.to(responses.device)


def _trajectory(item: Any) -> Trajectory:
    """The tokens of one item of a ``DataProto``, without padding."""
    batch, fields = item.batch, item.non_tensor_batch
    prompts, responses = batch["prompts"], batch["responses"]
    if "response_len" in fields:
        # While a rollout runs, sequences of one trajectory are padded on the right, and so are prompts.
        prompt_ids = prompts[: int(fields["prompt_len"])]
        is_response = torch.arange(len(responses)) < int(fields["response_len"])
    else:
        seen = batch["attention_mask"].bool()
        prompt_ids = prompts[seen[: len(prompts)]]
        is_response = seen[len(prompts) :]
    mask = batch["response_mask"][is_response].tolist() if "response_mask" in batch else None
    turns = fields.get("__num_turns__")
    return Trajectory(
        prompt_ids=prompt_ids.tolist(),
        response_ids=responses[is_response].tolist(),
        mask=mask,
        num_turns=2 if turns is None else int(turns),
        prompt=fields.get("raw_prompt"),
    )


def compute_score(
    data_source: str,  # noqa: ARG001
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    prm: str,
    aggregate: str = "min",
    process_weight: float = 1.0,
    grader: str | None = None,
    unscored: float = 0.0,
    **_: Any,
) -> dict[str, float]:
    """Verl's custom reward function: an aggregate of step rewards, beside the outcome if a grader is named.

    Args:
        data_source: Not used.
        ground_truth: The answer, for the grader.
        extra_info: Of the row; its ``prompt`` or ``question`` is what was asked.
        prm: A reward model: a directory, a hub id or ``http://HOST:PORT``.
        aggregate: As of :class:`~stepcredit.rl.step_rewards.StepRewards`.
        process_weight: Of the process reward.
        grader: A name of ``stepcredit grade --grader``; adds 1 where the answer is right.
        unscored: As of :class:`~stepcredit.rl.verl_rewards.VerlSettings`.

    Returns:
        ``score``, ``process_reward`` and, with a grader, ``acc``.

    Raises:
        UserError: The row does not hold the question.
    """
    asked = extra_info or {}
    # Messages come as a NumPy array from Parquet files, which is neither true nor false.
    given = (asked.get("prompt"), asked.get("question"))
    prompt = next((prompt for prompt in given if prompt is not None and len(prompt)), None)
    if prompt is None:
        raise UserError(
            "a row's extra_info holds no prompt, and steps cannot be scored without it",
            where="compute_score",
            hint="put it there as extra_info.prompt, or use StepRewardManager",
        )
    rewards = _loaded(prm, aggregate)
    turns: Sequence[Any] | str = prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]
    (process,) = rewards([turns], [solution_str])
    numbers = {"process_reward": unscored if process is None else process}
    total = process_weight * numbers["process_reward"]
    if grader is not None:
        grade = make_grader(grader).grade(solution_str, str(ground_truth), asked)
        numbers["acc"] = float(grade.correct)
        total += numbers["acc"]
    return {"score": total, **numbers}


@functools.cache
def _loaded(prm: str, aggregate: str) -> StepRewards:
    return StepRewards(prm, aggregate=aggregate)

"""Learning curves of a policy in TRL's GRPOTrainer, with rewards for outcomes, for steps, or for both.

Every arm draws equally many responses to the same problems, in the same order, from the same initial
weights; only the reward functions differ. Rewards are normalised within a prompt's group, each function
for itself, and then added, so that no weight between outcomes and steps has to be chosen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.checkpoints import load_tokenizer, quiet
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.grading.base import Grader
from stepcredit.rl import OnlinePRM, OnlineStepRewards, StepRewards
from stepcredit.scorers.base import ResponseScorer
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.stats import auc
from stepcredit.training.config import TrainConfig
from stepcredit.types import GenerationRequest, Prompt, Rollout, Sampling

AGGREGATE = "min"
"""What stands for a response: its lowest step, which the lab's searches choose by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Which rewards a policy learns from.

    Attributes:
        outcome: Whether the final answer is right, as a reward.
        process: Step rewards of a ``fixed`` or an ``online`` reward model; ``None`` without. An online one
            begins as the policy; ``continued`` is an online one that begins as the fixed one.
        floor: Least probability that the reference is taken to give a token.
        rate: Learning rate of an online model, as a share of :attr:`Materials.online`'s.
    """

    outcome: bool = True
    process: str | None = None
    floor: float = 0.0
    # Not in ``repr``, which names the curves that were written before there was a choice.
    rate: float = field(default=1.0, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How long and how fast a policy learns, and how often it is measured.

    Attributes:
        steps: Optimizer steps; each has one generation.
        prompts: Problems per step.
        responses: Responses to each.
        learning_rate: Of AdamW, constant.
        every: Steps between measurements.
        test_responses: Responses to each test problem at a measurement.
    """

    steps: int
    prompts: int = 8
    responses: int = 8
    learning_rate: float = 3e-4
    every: int = 4
    test_responses: int = 4
    max_new_tokens: int = 64

    @property
    def measured_at(self) -> tuple[int, ...]:
        """Steps after which the policy is measured, before the first included."""
        return tuple(range(0, self.steps + 1, self.every))


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """What the arms of a seed share.

    Attributes:
        problems: To learn on, in order.
    """

    policy: Path
    prm: Path
    online: TrainConfig
    problems: Sequence[Prompt]
    test: Sequence[Prompt]
    grader: Grader
    seed: int


def learning_curve(arm: Arm, course: Course, materials: Materials) -> dict[str, list[float]]:
    """Train one policy, and measure it on the way.

    Returns:
        Name to values, one per :attr:`Course.measured_at`: ``accuracy`` of test responses; ``reward``, mean
        of the arm's process reward (of the fixed model where the arm has none), ``auc`` of it on right
        against wrong responses (0.5 where all are alike) and ``wrong_reward``, its mean over wrong ones.
    """
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    tokenizer: Any = load_tokenizer(materials.policy)
    outcome = _outcome(materials.grader)
    scorer, process = _process_rewards(arm, materials, outcome)
    rewards: list[Any] = [*([outcome] if arm.outcome else []), *([] if process is None else [process])]
    with tempfile.TemporaryDirectory(prefix="stepcredit-grpo-") as folder, quiet():
        trainer = GRPOTrainer(
            model=str(materials.policy),
            reward_funcs=rewards,
            processing_class=tokenizer,
            args=GRPOConfig(
                output_dir=folder,
                max_steps=course.steps,
                per_device_train_batch_size=course.prompts * course.responses,
                num_generations=course.responses,
                max_completion_length=course.max_new_tokens,
                learning_rate=course.learning_rate,
                lr_scheduler_type="constant",
                multi_objective_aggregation="normalize_then_sum",
                seed=materials.seed,
                use_cpu=True,
                bf16=False,
                activation_checkpointing=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(
                [
                    {"prompt": [{"role": "user", "content": str(problem.prompt)}], "answer": problem.answer}
                    for problem in materials.problems
                ]
            ),
        )
        curve: dict[str, list[float]] = {}

        def measure() -> None:
            numbers = _measured(trainer.model, tokenizer, scorer, course, materials)
            for name, value in numbers.items():
                curve.setdefault(name, []).append(value)

        measure()
        trainer.add_callback(_at_steps(course.measured_at, measure))
        trainer.train()
    return curve


def _outcome(grader: Grader) -> Callable[..., list[float]]:
    def outcome(completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        return [float(grader.grade(text, right).correct) for text, right in zip(texts, answer, strict=True)]

    return outcome


def _process_rewards(
    arm: Arm, materials: Materials, outcome: Callable[..., list[float]]
) -> tuple[ResponseScorer, StepRewards | None]:
    """What the arm's responses are scored with, and its reward function."""
    if arm.process in ("online", "continued"):
        online = OnlinePRM(
            materials.policy if arm.process == "online" else materials.prm,
            replace(materials.online, learning_rate=arm.rate * materials.online.learning_rate),
            reference=materials.policy,
            reference_floor=arm.floor,
            seed=materials.seed,
        )
        return online.scorer, OnlineStepRewards(online, outcome, aggregate=AGGREGATE)
    fixed = ImplicitPRM.from_pretrained(materials.prm, reference_floor=arm.floor)
    return fixed, None if arm.process is None else StepRewards(fixed, aggregate=AGGREGATE)


def _at_steps(steps: Sequence[int], measure: Callable[[], None]) -> Any:
    from transformers import TrainerCallback

    class Measuring(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step in steps:
                measure()

    return Measuring()


def _measured(
    policy: Any, tokenizer: Any, scorer: ResponseScorer, course: Course, materials: Materials
) -> Mapping[str, float]:
    was_training = policy.training
    rollouts = _responses(policy, tokenizer, course, materials)
    policy.train(was_training)
    answers = {prompt.id: str(prompt.answer) for prompt in materials.test}
    right = np.array(
        [materials.grader.grade(rollout.response, answers[rollout.prompt_id]).correct for rollout in rollouts]
    )
    written = np.array([bool(rollout.response.strip()) for rollout in rollouts])
    scored = [rollout for rollout in rollouts if rollout.response.strip()]
    rewards = np.array([score.aggregates[AGGREGATE] for score in scorer.score_all(scored)])
    return {"accuracy": float(right.mean()), **reward_numbers(rewards, right[written])}


def reward_numbers(rewards: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, float]:
    """Mean reward, area under the ROC curve of right against wrong responses, mean reward of wrong ones.

    Where all responses are right, or all wrong, the area is 0.5; without wrong ones their reward is 0.
    """
    both = bool(right.any()) and not bool(right.all())
    return {
        "reward": float(rewards.mean()),
        "auc": float(auc(rewards, right)) if both else 0.5,
        "wrong_reward": float(rewards[~right].mean()) if not right.all() else 0.0,
    }


def _responses(policy: Any, tokenizer: Any, course: Course, materials: Materials) -> list[Rollout]:
    generator = TransformersGenerator(policy, tokenizer, name="policy")
    sampling = Sampling(max_new_tokens=course.max_new_tokens, seed=materials.seed)
    requests = (
        GenerationRequest(prompt=prompt, indices=tuple(range(course.test_responses)), sampling=sampling)
        for prompt in materials.test
    )
    return sorted(
        (item for item in generator.generate(requests) if isinstance(item, Rollout)),
        key=lambda item: (item.prompt_id, item.index),
    )

"""Times of GRPO steps and of the rewards in them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stepcredit.checkpoints import load_tokenizer, quiet
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.rl import StepRewards
from stepcredit.runs import Progress
from stepcredit.scorers.implicit import ImplicitPRM


@dataclass(frozen=True, slots=True)
class StepTimes:
    """One step: drawing completions, rewarding them, and the update.

    Attributes:
        seconds: Wall-clock time of the step.
        reward_seconds: Of the rewards in it.
        cpu_seconds: Processor time of the step, all threads.
        reward_cpu_seconds: Of the rewards in it.
        completions: Completions that were rewarded.
        tokens: Their tokens.
    """

    seconds: float
    reward_seconds: float
    cpu_seconds: float
    reward_cpu_seconds: float
    completions: int
    tokens: int


class Stopwatch:
    """A reward function around another one, and a callback of the trainer: both note the time."""

    def __init__(self, rewards: StepRewards, progress: Progress) -> None:
        self.steps: list[StepTimes] = []
        self.__name__ = rewards.__name__
        self._rewards, self._progress = rewards, progress
        self._began = self._rewarding = (0.0, 0.0)
        self._completions = self._tokens = 0

    def __call__(self, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float | None]:
        """The rewards."""
        start = _now()
        rewards = self._rewards(completion_ids=completion_ids, **columns)
        self._rewarding = _since(start)
        self._completions, self._tokens = len(rewards), sum(map(len, completion_ids))
        return rewards

    def begin(self) -> None:
        """A step begins."""
        self._began = _now()

    def end(self) -> None:
        """It ends."""
        (seconds, cpu), (reward_seconds, reward_cpu) = _since(self._began), self._rewarding
        self.steps.append(
            StepTimes(seconds, reward_seconds, cpu, reward_cpu, self._completions, self._tokens)
        )
        self._progress.advance()


def time_steps(
    *, prompts: int, responses: int, steps: int, max_new_tokens: int, threads: int, seed: int
) -> tuple[StepTimes, ...]:
    """Train the lab's policy for one step that is not timed and those that are.

    The reward model is two of the lab's policies and a beta. What its weights are does not change its cost.
    The policy has no KL term, so that its step is as short as GRPO's can be.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    torch.set_num_threads(threads)
    policy, num_steps = policy_path("mid"), steps + 1
    prm = ImplicitPRM.from_pretrained(policy_path("strong"), reference=policy, beta=0.5, steps="newline")
    problems = make_prompts("train", seed=seed, count=prompts * num_steps)
    with (
        tempfile.TemporaryDirectory(prefix="stepcredit-bench-") as folder,
        quiet(),
        Progress("bench rl", num_steps, "steps", every=1.0) as progress,
    ):
        watch = Stopwatch(StepRewards(prm, aggregate="min"), progress)

        class Watching(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                watch.begin()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                watch.end()

        trainer = GRPOTrainer(
            model=str(policy),
            reward_funcs=[watch],
            processing_class=load_tokenizer(policy),
            args=GRPOConfig(
                output_dir=folder,
                max_steps=num_steps,
                per_device_train_batch_size=prompts * responses,
                num_generations=responses,
                max_completion_length=max_new_tokens,
                seed=seed,
                use_cpu=True,
                bf16=False,
                activation_checkpointing=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": [{"role": "user", "content": str(problem.prompt)}]} for problem in problems]
            ),
            callbacks=[Watching()],
        )
        trainer.remove_callback(PrinterCallback)  # which writes between the lines of the result
        trainer.train()
    return tuple(watch.steps[1:])


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - start[0], time.process_time() - start[1]

"""An implicit PRM that keeps learning from the policy's own graded rollouts (PRIME, arXiv:2502.01456)."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers

from stepcredit.checkpoints import LoadOptions, PRMCard, load_tokenizer, quiet, save_prm
from stepcredit.errors import DataError, UserError
from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.objectives import get_objective
from stepcredit.rl.completions import Completion
from stepcredit.rl.step_rewards import StepRewards
from stepcredit.runs import atomic_directory
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.kinds import get_kind
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet, balanced, encode_examples, units_of
from stepcredit.training.fitting import make_trainer
from stepcredit.training.inputs import Inputs, longest_sequence
from stepcredit.training.models import load_models
from stepcredit.training.reference import LiveReference
from stepcredit.training.session import Session, training_arguments
from stepcredit.training.sources import Sources
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Message, Rollout
from stepcredit.wording import quantity

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one update did.

    Attributes:
        loss: Mean over the batch, before each optimizer step; ``None`` where there was nothing to learn.
        examples: Responses that were learned from.
        left_out: Responses that were not: not graded, or not encodable.
        steps: Optimizer steps.
    """

    loss: float | None
    examples: int
    left_out: int
    steps: int


class OnlinePRM:
    """Learns from each batch of graded rollouts once, and scores with what it has learned so far.

    Objective, batches, precision and adapters are those of ``stepcredit train``.

    Args:
        model: Initial weights: a language model (PRIME starts from the policy's), or a trained implicit PRM.
        config: Settings, of which ``epochs`` are the passes over each batch; ``balance`` and ``over_long``
            hold within a batch. The learning rate is constant, and the step rule cannot be ``auto``.
        reference: The frozen model; by default the initial weights.
        reference_floor: As in :class:`~stepcredit.scorers.implicit.ImplicitPRM`.
        seed: Seed of adapters and of the order of rollouts.

    Attributes:
        scorer: Gives rewards with the current weights.

    Raises:
        UserError: Settings are not those of an implicit reward model, or there are several processes.
    """

    def __init__(
        self,
        model: str | Path,
        config: TrainConfig,
        *,
        reference: str | Path | None = None,
        reference_floor: float = 0.0,
        load: LoadOptions | None = None,
        seed: int = 0,
    ) -> None:
        _check(config)
        self.config, self.seed = config, seed
        load = load or LoadOptions()
        self._sources = Sources.find(model, reference, config, load)
        source = self._sources.model
        tokenizer = load_tokenizer(source.path, trust_remote_code=load.trust_remote_code, chat=load.chat)
        longest = longest_sequence(source.path, config, load)
        self.encoding = get_kind(config.family).encoding(tokenizer, config.rule, longest)
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.num_updates = 0
        # A trainer needs a folder, and writes nothing to it here.
        self._folder = tempfile.TemporaryDirectory(prefix="stepcredit-online-")
        self._trainer = self._make_trainer(load)
        assert isinstance(self._trainer.reference, LiveReference)
        self.scorer = ImplicitPRM(
            LocalTokenLogProbs(
                self._model,
                weights_hash=f"online:{source.path.name}",
                token_budget=self._trainer.tokens_per_forward,
            ),
            self._trainer.reference.source,
            config.beta,
            self.encoding,
            reference_floor=reference_floor,
            label=f"online {source.path.name}",
        )

    @property
    def _model(self) -> Any:
        return self._trainer.model

    def _make_trainer(self, load: LoadOptions) -> PRMTrainer:
        # The reference is asked about rollouts that are not there yet, so it stays.
        layout = "padded" if self.config.layout == "auto" else self.config.layout
        config = replace(self.config, live_reference=True, layout=layout)
        transformers.set_seed(self.seed)
        inputs = Inputs(
            tokenizer=self.tokenizer,
            encoding=self.encoding,
            step_rule=config.step_rule,
            data=TrainingSet(examples=(), units=()),
            heldout=(),
        )
        arguments = training_arguments(
            config, Path(self._folder.name), load, seed=self.seed, steps_per_epoch=1, has_heldout=False
        )
        session = Session(arguments=arguments, sharded=False, snapshot=None)
        models = load_models(inputs, self._sources, config, load, session, cache=None)
        trainer = make_trainer(inputs, models, config, session)
        trainer.create_optimizer()
        _prepare(trainer)
        return trainer

    def update(self, rollouts: Sequence[Rollout]) -> Update:
        """Learn from graded rollouts.

        Args:
            rollouts: The newest batch; those without a verdict are left out.
        """
        trainer, objective = self._trainer, get_objective(self.config.objective)
        seed = self.seed + self.num_updates
        examples = encode_examples(
            rollouts, self.encoding, objective=objective, over_long=self.config.over_long
        )
        examples = balanced(examples, self.config, seed)
        left_out = len(rollouts) - len(examples)
        try:
            units, mismatched = units_of(examples, self.encoding, objective, self.config, seed, {})
        except DataError:
            # No prompt of this batch has a right and a wrong response; the next one's may.
            units, mismatched = (), ()
        if not units:
            return Update(loss=None, examples=0, left_out=left_out, steps=0)
        trainer.data = TrainingSet(examples=tuple(examples), units=units, mismatched=mismatched)
        losses = [self._step(step) for step in self._steps(trainer.data, seed)]
        self.num_updates += 1
        return Update(
            loss=sum(losses) / len(losses), examples=len(examples), left_out=left_out, steps=len(losses)
        )

    def _steps(self, data: TrainingSet, seed: int) -> Iterator[list[int]]:
        """The units of each optimizer step; part of a pass is rounded up to whole steps, as in training."""
        size = self.config.batch_size
        left = max(1, math.ceil(self.config.epochs * math.ceil(len(data.units) / size)))
        groups = data.groups(by_prompt=self.config.group_prompts)
        generator = torch.Generator().manual_seed(seed)
        while left > 0:
            order = torch.randperm(len(groups), generator=generator).tolist()
            units = [unit for group in order for unit in groups[group]]
            for start in range(0, len(units), size)[:left]:
                yield units[start : start + size]
            left -= math.ceil(len(units) / size)

    def _step(self, units: Sequence[int]) -> float:
        trainer = self._trainer
        optimizer = trainer.optimizer
        assert optimizer is not None
        try:
            with quiet(), torch.enable_grad():
                loss = trainer.training_step(self._model, trainer.make_step_batch(units))
            if self.config.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(self._model.parameters(), self.config.max_grad_norm)
            optimizer.step()
        finally:
            # A step that fails halfway leaves nothing that the next one would add to.
            optimizer.zero_grad()
            trainer.sums.clear()
        return float(loss)

    def save(self, directory: str | Path) -> None:
        """Write the current weights as a trained PRM, whole or not at all; what is there is replaced."""
        config = self.config
        card = PRMCard(
            family=config.family,
            reference=self._sources.reference(Path(directory), config),
            beta=config.beta,
            objective=f"{config.objective} (online)",
            step_rule=config.step_rule,
            settings={**asdict(config), "seed": self.seed, "updates": self.num_updates},
        )
        with atomic_directory(Path(directory)) as temporary:
            save_prm(self._model, self.tokenizer, card, temporary)


class OnlineStepRewards(StepRewards):
    """Rewards of a PRM that first learns from the completions that it is asked about.

    Args:
        outcome: A reward function of TRL's signature that says whether each completion is right: 1 or 0;
            ``None`` is not graded.
        aggregate: As of :class:`~stepcredit.rl.step_rewards.StepRewards`.
        tokenizer: As there.
        unscored: As there.
        update: Whether a batch is learned from before its rewards are given, or after.
    """

    def __init__(
        self,
        prm: OnlinePRM,
        outcome: Callable[..., Sequence[float | None]],
        *,
        aggregate: str = "min",
        tokenizer: PreTrainedTokenizerBase | None = None,
        unscored: float | None = None,
        update: Literal["before", "after"] = "before",
    ) -> None:
        if update not in ("before", "after"):
            raise UserError(f"{update!r} is neither before nor after", where="update")
        super().__init__(prm.scorer, aggregate=aggregate, tokenizer=tokenizer, unscored=unscored)
        self.prm, self.outcome, self.update = prm, outcome, update
        self.__name__ = f"online_{self.__name__}"

    def __call__(
        self,
        prompts: Sequence[str | Sequence[Message]],
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """As of :class:`StepRewards`; completions of an evaluation are scored and not learned from."""
        rewards: list[float | None] = []
        if self.update == "after":
            rewards = super().__call__(prompts, completions, completion_ids, log_metric, **columns)
        if _is_training(log_metric):
            outcomes = self.outcome(
                prompts=prompts, completions=completions, completion_ids=completion_ids, **columns
            )
            rollouts = self.rollouts(prompts, completions, completion_ids, columns.get("tools"))
            done = self.prm.update(_graded(rollouts, outcomes))
            if log_metric is not None and done.loss is not None:
                log_metric(f"{self.__name__}/loss", done.loss)
        if self.update == "before":
            rewards = super().__call__(prompts, completions, completion_ids, log_metric, **columns)
        return rewards


def _graded(rollouts: Sequence[Rollout], outcomes: Sequence[float | None] | None) -> list[Rollout]:
    """Rollouts with their verdicts; an outcome that is no number, like ``None``, is no verdict.

    Raises:
        DataError: There is not one outcome per completion.
    """
    given = [] if outcomes is None else list(outcomes)
    if len(given) != len(rollouts):
        raise DataError(
            f"gives {quantity(len(given), 'outcome')} for {quantity(len(rollouts), 'completion')}",
            where="outcome",
            hint="return one number, or None, per completion",
        )
    return [
        replace(rollout, correct=None if outcome is None or math.isnan(outcome) else bool(outcome > 0.5))
        for rollout, outcome in zip(rollouts, given, strict=True)
    ]


def _prepare(trainer: PRMTrainer) -> None:
    """What ``train`` does to the model before its first step: autocast in its forward, and recomputing."""
    model: Any = trainer.model
    if trainer.args.activation_checkpointing:
        model.activation_checkpointing_enable()
    trainer.model_wrapped = trainer.accelerator.prepare_model(model)


def _is_training(log_metric: Callable[[str, float], None] | None) -> bool:
    """Whether the trainer that asks is training: it says so nowhere but in its model's mode."""
    model = getattr(getattr(log_metric, "__self__", None), "model", None)
    return bool(getattr(model, "training", True))


def _check(config: TrainConfig) -> None:
    if not config.has_reference:
        raise UserError(
            "only implicit reward models with a reference learn online",
            where="config",
            hint="use --family implicit",
        )
    if config.step_rule == "auto":
        raise UserError(
            "a step rule cannot be chosen before there are responses",
            where="config",
            hint="set step_rule, e.g. newline",
        )
    if get_objective(config.objective).needs_step_labels:
        raise UserError(f"{config.objective} needs step labels, which rollouts do not have", where="config")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise UserError(
            f"learns in one process, and there are {processes}, whose models would drift apart",
            where="OnlinePRM",
            hint="serve a fixed reward model instead, and pass its address to StepRewards",
        )

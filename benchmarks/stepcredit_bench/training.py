"""Training beside TRL's ``DPOTrainer`` and a plain PyTorch loop, on the same units in the same order.

All sides: products in bf16 under autocast with float32 weights, AdamW with the same settings, clipping
at 1, a constant learning rate; activations are kept (ours recomputes some where memory is short).
Ours computes the reference once, before training, and that pass is in its time; the others run it live, as
they do by default, on every unit. Under autocast on a CPU TRL's head runs in float32, so a part of the ratio
to TRL is the CPU's.
"""

from __future__ import annotations

import gc
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional

from stepcredit.errors import MissingExtraError
from stepcredit.logprobs import LocalTokenLogProbs, enable_log_probs, enable_packing, pad
from stepcredit.scorers.implicit import implicit_record
from stepcredit.training.budget import tokens_per_forward
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example
from stepcredit.training.recomputing import recompute_if_short_of_memory
from stepcredit.training.reference import AutocastLogProbs, StoredReference
from stepcredit.training.step_batches import StepBatch
from stepcredit.training.trainer import PRMTrainer
from stepcredit_bench.training_work import TrainWork
from stepcredit_bench.workload import SHAPES, random_model, word_tokenizer

ADAM_BETAS = (0.9, 0.95)
MAX_GRAD_NORM = 1.0


class _TrainSide(ABC):
    """A turn trains anew from the initial weights; its outcome is the loss of each step."""

    device = "cpu"

    def __init__(self, work: TrainWork) -> None:
        self.work = work
        self.details: dict[str, int] = {}

    def load(self) -> None:
        self.data = self.work.data
        self.folder = tempfile.TemporaryDirectory()
        self.prepare()

    def prepare(self) -> None:
        self.policy = self.initial_model()

    def initial_model(self) -> Any:
        """The policy before training, and the reference."""
        return random_model(self.work.shape, seed=self.work.seed + 1, device=self.device)

    def warm_up(self) -> None:
        tokens = torch.tensor([self.data.examples[0].encoded.token_ids], device=self.device)
        with self.autocast():
            self.policy(input_ids=tokens).logits.float().mean().backward()
        self.policy.zero_grad(set_to_none=True)

    def run(self) -> dict[str, Any]:
        """Train; what an earlier turn left behind (a trainer holds itself in cycles) is freed before."""
        gc.collect()
        self.policy.zero_grad(set_to_none=True)
        return {"losses": self.train(), **self.details}

    @abstractmethod
    def train(self) -> list[float]:
        """Train on all units in order; the loss of each step."""

    def autocast(self) -> torch.autocast:
        """What Trainer runs a forward pass in."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.work.autocast_dtype is not None)

    def arguments(self) -> dict[str, Any]:
        """Settings that both Trainer-based sides share."""
        return {
            "output_dir": self.folder.name,
            "max_steps": self.work.steps,
            "learning_rate": self.work.learning_rate,
            "lr_scheduler_type": "constant",
            "adam_beta1": ADAM_BETAS[0],
            "adam_beta2": ADAM_BETAS[1],
            "weight_decay": 0.0,
            "max_grad_norm": MAX_GRAD_NORM,
            "bf16": self.work.precision == "bfloat16",
            "use_cpu": self.device == "cpu",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "remove_unused_columns": False,
            "seed": self.work.seed,
        }


def _losses(log_history: list[dict[str, Any]]) -> list[float]:
    return [float(row["loss"]) for row in log_history if "loss" in row]


class _InOrder(PRMTrainer):
    """Our trainer without shuffling, so that the sides see the same batches; it counts its passes."""

    num_passes = 0

    def make_step_batch(self, units: Sequence[int]) -> StepBatch:
        step = super().make_step_batch(units)
        self.num_passes += len(step.forwards)
        return step

    def get_train_dataloader(self) -> Any:
        size, total = self.config.batch_size, len(self.data.units)
        batches = [list(range(start, min(start + size, total))) for start in range(0, total, size)]
        return torch.utils.data.DataLoader(
            range(total),  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=self.make_step_batch,
        )


class OurSide(_TrainSide):
    """Packed, a pair's prompt once, projection at response positions in pieces, reference once."""

    def prepare(self) -> None:
        """The policy, and what this side needs besides."""
        super().prepare()
        enable_log_probs(self.policy)
        self.packed = enable_packing(self.policy)
        self.config = TrainConfig(
            objective=self.work.objective,
            batch_size=self.work.units_per_step,
            precision=self.work.precision,
            group_prompts=self.work.workload == "group",
            tokens_per_forward=self.work.tokens_per_forward,
        )
        recompute_if_short_of_memory(self.policy, self.data, self.config, packed=self.packed)

    def train(self) -> list[float]:
        """Train."""
        from transformers import PrinterCallback, TrainingArguments

        tokens = tokens_per_forward(self.policy, self.data, self.config, packed=self.packed)
        source = LocalTokenLogProbs(self.policy, weights_hash="random")
        trainer = _InOrder(
            self.policy,
            TrainingArguments(**self.arguments()),
            config=self.config,
            record=partial(implicit_record, beta=self.work.beta),
            data=self.data,
            reference=StoredReference(
                AutocastLogProbs(source, self.device, self.work.autocast_dtype),
                [example.encoded for example in self.data.examples],
            ),
            tokens_per_forward=tokens,
            packed=self.packed,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        self.details = {"tokens_per_forward": tokens, "passes": trainer.num_passes}
        return _losses(trainer.state.log_history)


class TrlSide(_TrainSide):
    """``trl.DPOTrainer`` with its own collation, head and reference pass; only its tokenising is left out."""

    def __init__(self, work: TrainWork) -> None:
        super().__init__(work)
        try:
            import trl  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("trl", "dev", needed_for="the comparison with TRL") from error

    def prepare(self) -> None:
        """The policy, and what this side needs besides."""
        super().prepare()
        self.reference = self.initial_model()

    def train(self) -> list[float]:
        """Train."""
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        class InOrder(DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

        rows = []
        for unit in self.data.units:
            chosen, rejected = (self.data.examples[row].encoded for row in unit)
            rows.append(
                {
                    "prompt_ids": list(chosen.token_ids[: chosen.scored_start]),
                    "chosen_ids": list(chosen.token_ids[chosen.scored_start :]),
                    "rejected_ids": list(rejected.token_ids[rejected.scored_start :]),
                }
            )
        pairs_per_pass = min(self.work.others_per_pass, self.work.units_per_step)
        settings = self.arguments() | {
            "per_device_train_batch_size": pairs_per_pass,
            "gradient_accumulation_steps": self.work.units_per_step // pairs_per_pass,
            "train_sampling_strategy": "sequential",
            "beta": self.work.beta,
            "max_length": None,
            "gradient_checkpointing": False,
        }
        trainer = InOrder(
            model=self.policy,
            ref_model=self.reference,
            args=DPOConfig(**settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=word_tokenizer(SHAPES[self.work.shape]["vocab_size"]),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return _losses(trainer.state.log_history)


class PlainSide(_TrainSide):
    """The loop that one writes first: a padded batch, whole logits, the reference live."""

    def prepare(self) -> None:
        """The policy, and what this side needs besides."""
        super().prepare()
        self.reference = self.initial_model()
        self.policy.train()

    def train(self) -> list[float]:
        """Train."""
        work = self.work
        optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=work.learning_rate, betas=ADAM_BETAS, weight_decay=0.0, fused=True
        )
        losses = []
        for step in range(work.steps):
            loss = 0.0
            for part in self._parts(step):
                part_loss = self._loss(part) / work.units_per_step
                part_loss.backward()
                loss += part_loss.item()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss)
        return losses

    def _parts(self, step: int) -> Iterator[list[Example]]:
        """The responses of each forward pass; of pairs, the chosen ones first."""
        work = self.work
        units = self.data.units[step * work.units_per_step : (step + 1) * work.units_per_step]
        for start in range(0, len(units), work.others_per_pass):
            part = units[start : start + work.others_per_pass]
            yield [self.data.examples[unit[place]] for place in range(len(part[0])) for unit in part]

    def _loss(self, part: Sequence[Example]) -> torch.Tensor:
        """The sum of the losses of its units."""
        sequences = [example.encoded for example in part]
        batch = pad(sequences).to(self.device)
        scored = torch.zeros_like(batch.input_ids, dtype=torch.bool)
        for row, item in enumerate(sequences):
            scored[row, item.scored_start : len(item.token_ids)] = True
        with self.autocast():
            policy = self._sums(self.policy, batch, scored)
            with torch.no_grad():
                reference = self._sums(self.reference, batch, scored)
        rewards = self.work.beta * (policy - reference)
        if self.work.objective == "dpo":
            chosen, rejected = rewards.chunk(2)
            return -functional.logsigmoid(chosen - rejected).sum()
        labels = torch.tensor([example.label for example in part], device=self.device)
        return functional.binary_cross_entropy_with_logits(rewards, labels, reduction="sum")

    def _sums(self, model: Any, batch: Any, scored: torch.Tensor) -> torch.Tensor:
        logits = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits[:, :-1]
        # CPU autocast leaves log-softmax in bf16, whose rounding moves losses by more than a step does.
        log_probs = logits.log_softmax(dim=-1, dtype=torch.float32)
        picked = log_probs.gather(2, batch.input_ids[:, 1:, None])[..., 0]
        sums: torch.Tensor = (picked * scored[:, 1:]).sum(dim=1)
        return sums

"""Training beside TRL's ``DPOTrainer`` and a plain PyTorch loop, on the same pairs in the same order.

All sides: DPO, products in bf16 under autocast with float32 weights, AdamW with the same settings, clipping
at 1, a constant learning rate, no activation checkpointing. Ours computes the reference once, before
training, and that pass is in its time; the others run it live, as they do by default. On a CPU TRL's head
runs in float32, so a part of the ratio to TRL is the CPU's.
"""

from __future__ import annotations

import gc
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional

from stepcredit.errors import MissingExtraError
from stepcredit.logprobs import LocalTokenLogProbs, enable_log_probs, enable_packing, pad
from stepcredit.objectives import ObjectiveSettings
from stepcredit.scorers.implicit import implicit_record
from stepcredit.training.examples import Example, TrainingSet
from stepcredit.training.reference import AutocastLogProbs, StoredReference
from stepcredit.training.trainer import PRMTrainer
from stepcredit_bench.processes import Side, SideReport, compare
from stepcredit_bench.workload import SHAPES, Pair, preference_pairs, random_model

ADAM_BETAS = (0.9, 0.95)
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainWork:
    """What every side trains.

    Attributes:
        shape: Name in :data:`~stepcredit_bench.workload.SHAPES`.
        steps: Optimizer steps.
        batch_size: Pairs a step.
        learning_rate: Constant.
        beta: DPO's scale.
        tokens_per_forward: Our side's token budget of one forward pass.
        precision: ``bfloat16``; or ``float32``, in which the sides' losses agree closely.
        seed: Of tokens and weights.
    """

    shape: str = "smollm2-135m"
    steps: int = 3
    batch_size: int = 8
    learning_rate: float = 1e-5
    beta: float = 0.1
    tokens_per_forward: int = 1280
    precision: str = "bfloat16"
    seed: int = 0

    def pairs(self) -> list[Pair]:
        """All pairs, in the order in which they are trained on."""
        return preference_pairs(self.shape, num_pairs=self.steps * self.batch_size, seed=self.seed)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What products run in; ``None`` is float32."""
        return torch.bfloat16 if self.precision == "bfloat16" else None

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences, prompts counted in each."""
        return sum(len(pair.chosen.token_ids) + len(pair.rejected.token_ids) for pair in self.pairs())


class _TrainSide(ABC):
    """A turn trains anew from the initial weights; its outcome is the loss of each step."""

    def __init__(self, work: TrainWork) -> None:
        self.work = work

    def load(self) -> None:
        self.pairs = self.work.pairs()
        self.folder = tempfile.TemporaryDirectory()
        self.prepare()

    def prepare(self) -> None:
        self.policy = random_model(self.work.shape, seed=self.work.seed + 1)

    def warm_up(self) -> None:
        tokens = torch.tensor([self.pairs[0].chosen.token_ids])
        with self.autocast():
            self.policy(input_ids=tokens).logits.float().mean().backward()
        self.policy.zero_grad(set_to_none=True)

    def run(self) -> dict[str, Any]:
        """Train; what an earlier turn left behind (a trainer holds itself in cycles) is freed before."""
        gc.collect()
        self.policy.zero_grad(set_to_none=True)
        return {"losses": self.train()}

    @abstractmethod
    def train(self) -> list[float]:
        """Train on all pairs in order; the loss of each step."""

    def autocast(self) -> torch.autocast:
        """What Trainer runs a forward pass in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.work.autocast_dtype is not None)

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
            "use_cpu": True,
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
    """Our trainer without shuffling, so that the sides see the same batches."""

    def get_train_dataloader(self) -> Any:
        size, total = self.units_per_step, len(self.data.units)
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

    def train(self) -> list[float]:
        """Train."""
        from transformers import PrinterCallback, TrainingArguments

        examples, units = [], []
        for number, pair in enumerate(self.pairs):
            for label, encoded in ((1.0, pair.chosen), (0.0, pair.rejected)):
                name = f"{number}-{label:.0f}"
                examples.append(Example(id=name, prompt_id=str(number), encoded=encoded, label=label))
            units.append((2 * number, 2 * number + 1))
        source = LocalTokenLogProbs(self.policy, weights_hash="random")
        trainer = _InOrder(
            self.policy,
            TrainingArguments(**self.arguments()),
            record=partial(implicit_record, beta=self.work.beta),
            objective="dpo",
            objective_settings=ObjectiveSettings(),
            data=TrainingSet(examples=tuple(examples), units=tuple(units)),
            reference=StoredReference(
                AutocastLogProbs(source, "cpu", self.work.autocast_dtype),
                [example.encoded for example in examples],
            ),
            batch_size=self.work.batch_size,
            tokens_per_forward=self.work.tokens_per_forward,
            packed=self.packed,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
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
        self.reference = random_model(self.work.shape, seed=self.work.seed + 1)

    def train(self) -> list[float]:
        """Train."""
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        class InOrder(DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

        rows = [
            {
                "prompt_ids": list(pair.chosen.token_ids[: pair.chosen.scored_start]),
                "chosen_ids": list(pair.chosen.token_ids[pair.chosen.scored_start :]),
                "rejected_ids": list(pair.rejected.token_ids[pair.rejected.scored_start :]),
            }
            for pair in self.pairs
        ]
        settings = self.arguments() | {
            "per_device_train_batch_size": self.work.batch_size,
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
            processing_class=_tokenizer(self.work.shape),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return _losses(trainer.state.log_history)


def _tokenizer(shape: str) -> Any:
    """A stand-in: TRL asks it for the padding token only, as rows are tokenised already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"t{token}": token for token in range(SHAPES[shape]["vocab_size"])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t1")),
        pad_token="t0",
        unk_token="t1",
        eos_token="t2",
    )


class PlainSide(_TrainSide):
    """The loop that one writes first: a padded batch, whole logits, the reference live."""

    def prepare(self) -> None:
        """The policy, and what this side needs besides."""
        super().prepare()
        self.reference = random_model(self.work.shape, seed=self.work.seed + 1)
        self.policy.train()

    def train(self) -> list[float]:
        """Train."""
        work = self.work
        optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=work.learning_rate, betas=ADAM_BETAS, weight_decay=0.0, fused=True
        )
        losses = []
        for start in range(0, len(self.pairs), work.batch_size):
            pairs = self.pairs[start : start + work.batch_size]
            sequences = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
            batch = pad(sequences)
            scored = torch.zeros_like(batch.input_ids, dtype=torch.bool)
            for row, item in enumerate(sequences):
                scored[row, item.scored_start : len(item.token_ids)] = True
            with self.autocast():
                policy = self._sums(self.policy, batch, scored)
                with torch.no_grad():
                    reference = self._sums(self.reference, batch, scored)
            chosen, rejected = (policy - reference).chunk(2)
            loss = -functional.logsigmoid(work.beta * (chosen - rejected)).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def _sums(self, model: Any, batch: Any, scored: torch.Tensor) -> torch.Tensor:
        logits = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits[:, :-1]
        # CPU autocast leaves log-softmax in bf16, whose rounding moves losses by more than a step does.
        log_probs = logits.log_softmax(dim=-1, dtype=torch.float32)
        picked = log_probs.gather(2, batch.input_ids[:, 1:, None])[..., 0]
        sums: torch.Tensor = (picked * scored[:, 1:]).sum(dim=1)
        return sums


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBenchmark:
    """How fast and in how much memory each side trained.

    Attributes:
        work: What was trained.
        threads: Threads of each side.
        sides: Reports: ``ours``, ``trl_dpo``, ``plain_loop``.
    """

    work: TrainWork
    threads: int
    sides: dict[str, SideReport]

    def tokens_per_second(self, side: str) -> float:
        """Trained tokens (each sequence's, prompts included) by wall-clock time."""
        return self.work.num_tokens / self.sides[side].best_seconds

    def speedup(self, other: str) -> float:
        """Our tokens/s over another side's."""
        return self.tokens_per_second("ours") / self.tokens_per_second(other)

    def memory_ratio(self, other: str) -> float:
        """Our peak resident memory over another side's, everything included."""
        return self.sides["ours"].peak_mb / self.sides[other].peak_mb

    def largest_loss_difference(self, other: str) -> float:
        """Largest difference of a step's loss between the sides."""
        ours, theirs = (self.sides[name].outcome["losses"] for name in ("ours", other))
        return float(max(abs(left - right) for left, right in zip(ours, theirs, strict=True)))


def run_train_benchmark(
    work: TrainWork, *, turns: int, threads: int, on_turn: Callable[[str, float], None]
) -> TrainBenchmark:
    """Train by turns, each side in its own process."""
    sides: dict[str, Callable[[], Side]] = {
        "ours": partial(OurSide, work),
        "trl_dpo": partial(TrlSide, work),
        "plain_loop": partial(PlainSide, work),
    }
    return TrainBenchmark(
        work=work, threads=threads, sides=compare(sides, turns=turns, threads=threads, on_turn=on_turn)
    )

"""Reference log-probabilities for training: once before it, or beside the policy in each step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from stepcredit.checkpoints import LoadOptions, load_model
from stepcredit.logprobs import CachedTokenLogProbs, LocalTokenLogProbs
from stepcredit.runs import Progress
from stepcredit.training.config import TrainConfig
from stepcredit.training.session import Session
from stepcredit.training.sources import Sources
from stepcredit.training.step_batches import ReferenceLogProbs
from stepcredit.types import Encoded, TokenLogProbs

_BLOCK = 512


class StoredReference:
    """Computed once for every distinct sequence, divided among the processes.

    Attributes:
        num_tokens: Tokens passed forward by all processes.
    """

    def __init__(
        self,
        source: TokenLogProbs,
        sequences: Iterable[Encoded],
        *,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        distinct = list(dict.fromkeys(replace(item, step_ends=()) for item in sequences))
        # What begins alike lies together, so that a prompt is computed once.
        distinct.sort(key=lambda item: item.token_ids)
        bounds = [len(distinct) * number // num_processes for number in (process, process + 1)]
        mine = distinct[slice(*bounds)]
        rows: list[Any] = []
        # Every process does as much, so the first one's progress stands for all.
        progress = Progress("reference", len(mine), "responses") if process == 0 else None
        with progress or contextlib.nullcontext():
            for start in range(0, len(mine), _BLOCK):
                block = mine[start : start + _BLOCK]
                rows += zip(block, source.of(block), strict=True)
                if progress is not None:
                    progress.advance(len(block))
        if num_processes > 1:
            rows = gather_object(rows)
        self.num_tokens = sum(len(item.token_ids) for item in distinct)
        self._table = {item: torch.from_numpy(values) for item, values in rows}

    def __call__(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        """Log-probabilities of each sequence's scored tokens, in nats."""
        return [self._table[replace(item, step_ends=())] for item in encoded]


class LiveReference:
    """Computed anew whenever it is asked for."""

    def __init__(self, source: TokenLogProbs) -> None:
        self.source = source

    def __call__(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        """Log-probabilities of each sequence's scored tokens, in nats."""
        return [torch.from_numpy(values) for values in self.source.of(encoded)]


class AutocastLogProbs:
    """Runs a source under the autocast that training uses, so that both sides round alike.

    Args:
        dtype: Autocast dtype; ``None`` is off.
    """

    def __init__(self, source: TokenLogProbs, device: str, dtype: torch.dtype | None) -> None:
        self.source, self.device, self.dtype = source, device, dtype

    @property
    def fingerprint(self) -> str:
        """The source's, and the autocast dtype."""
        return f"{self.source.fingerprint}/autocast:{self.dtype}" if self.dtype else self.source.fingerprint

    def of(self, encoded: Sequence[Encoded]) -> list[Any]:
        """As the source."""
        autocast: Any = contextlib.nullcontext()
        if self.dtype is not None:
            autocast = torch.autocast(self.device, self.dtype)
        with autocast:
            return self.source.of(encoded)


def has_own_network(config: TrainConfig, sources: Sources, session: Session) -> bool:
    """Whether the reference is a network of its own, not the policy before training."""
    if sources.other_reference is not None:
        return True
    if config.lora_rank:
        return False
    # Sharded weights are cast as they are gathered rather than by autocast, so only a network in that
    # format rounds as the policy does.
    return config.live_reference or (session.sharded and config.precision == "bfloat16")


def make_reference(
    policy: nn.Module | None,
    sequences: Sequence[Encoded],
    sources: Sources,
    config: TrainConfig,
    load: LoadOptions,
    session: Session,
    cache: str | Path | None,
) -> ReferenceLogProbs:
    """Reference log-probabilities of everything that training will ask for.

    Args:
        policy: The policy before training, already on its device; ``None`` loads a network for the
            reference (:func:`has_own_network`).
        sources: Where the policy came from, and the reference if it is another.
        config: Decides precision, and whether they are computed once or in each step.
        session: The device, and the processes among which the work is divided.
    """
    source = _source(policy, sources, config, load, session)
    if cache is not None:
        source = CachedTokenLogProbs(source, cache)
    if config.live_reference:
        return LiveReference(source)
    arguments = session.arguments
    return StoredReference(
        source, sequences, process=arguments.process_index, num_processes=arguments.world_size
    )


def _source(
    policy: nn.Module | None, sources: Sources, config: TrainConfig, load: LoadOptions, session: Session
) -> TokenLogProbs:
    """The reference: the policy before training, its base without the adapter, or another model."""
    device, other = session.arguments.device, sources.other_reference
    in_bfloat16 = config.precision == "bfloat16"
    if policy is None:
        model: str | Path = sources.model.name
        if other is not None:
            model, load = other.path, replace(load, revision=None)
        # The format in which the policy computes; autocast would round other weights otherwise.
        dtype = "bfloat16" if in_bfloat16 and (session.sharded or config.lora_rank) else "float32"
        policy = load_model(model, load, dtype=dtype, device=str(device))
    adapter_off = bool(config.lora_rank) and other is None
    source = LocalTokenLogProbs(
        policy,
        weights_hash=(sources.base if adapter_off else other or sources.model).model_hash,
        token_budget=config.token_budget(device.type),
        adapter_off=adapter_off,
    )
    casts = in_bfloat16 and not session.sharded
    return AutocastLogProbs(source, device.type, torch.bfloat16 if casts else None)

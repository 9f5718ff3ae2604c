"""The models of a run: the policy, and the reference's log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.checkpoints import LoadOptions, check_vocabulary
from stepcredit.errors import UserError
from stepcredit.logprobs.float32_products import needs_float32
from stepcredit.runs import warn
from stepcredit.training.config import TrainConfig
from stepcredit.training.inputs import Inputs
from stepcredit.training.policy import load_policy, packs
from stepcredit.training.recomputing import recompute_if_short_of_memory
from stepcredit.training.reference import has_own_network, make_reference
from stepcredit.training.session import Session
from stepcredit.training.sources import Sources
from stepcredit.training.step_batches import ReferenceLogProbs


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What is trained, and what it is compared with.

    Attributes:
        packed: Whether it takes sequences in one row.
        reference: Reference log-probabilities; ``None`` where there is no reference.
    """

    policy: Any
    packed: bool
    reference: ReferenceLogProbs | None


def load_models(
    inputs: Inputs,
    sources: Sources,
    config: TrainConfig,
    load: LoadOptions,
    session: Session,
    *,
    cache: str | Path | None,
) -> Models:
    """Load both; a reference of its own comes first, so that it is gone before the policy comes.

    Raises:
        UserError: They cannot be loaded or trained as asked.
    """
    if session.sharded and config.lora_rank and config.live_reference and sources.other_reference is None:
        raise UserError(
            "the base model of a sharded adapter cannot be run during training",
            where="--live-reference",
            hint="leave it out; the reference is then computed once before training",
        )
    name, device = sources.model.name, session.arguments.device
    if needs_float32(config.precision, device.type):
        warn("this processor has no instructions for bfloat16; --precision float32 is several times as fast")
    own_network = has_own_network(config, sources, session)
    policy = None if own_network else load_policy(name, config, load, device)
    reference = None
    if config.has_reference:
        reference = make_reference(policy, inputs.sequences, sources, config, load, session, cache)
    if policy is None:
        policy = load_policy(name, config, load, device)
    check_vocabulary(policy, inputs.tokenizer, name)
    packed = packs(policy, inputs.data, config)
    if not session.sharded:
        recompute_if_short_of_memory(policy, inputs.data, config, packed=packed)
    return Models(policy=policy, packed=packed, reference=reference)

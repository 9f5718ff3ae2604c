"""Rollouts to what training reads: step rule, format, examples, held-out examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.checkpoints import LoadOptions, PRMCard, context_length, load_config, load_tokenizer
from stepcredit.data.prompt_ids import one_prompt_each, shared_problems
from stepcredit.encoding import Encoding
from stepcredit.errors import UserError
from stepcredit.objectives import get_objective
from stepcredit.runs import warn
from stepcredit.scorers.kinds import get_kind
from stepcredit.steps import choose_rule, unescape
from stepcredit.training.config import TrainConfig
from stepcredit.training.counts import HELDOUT
from stepcredit.training.examples import (
    Example,
    TrainingSet,
    check_distinguishes,
    encode_examples,
    make_training_set,
)
from stepcredit.types import Encoded, Rollout
from stepcredit.wording import agree, quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What training reads.

    Attributes:
        encoding: The format of the kind of reward model.
        step_rule: The rule that ``auto`` became.
        data: What is trained on, and what was left out.
    """

    tokenizer: Any
    encoding: Encoding
    step_rule: str
    data: TrainingSet
    heldout: Sequence[Example]

    @property
    def sequences(self) -> list[Encoded]:
        """All that a reference will be asked for."""
        examples = (*self.data.examples, *self.heldout)
        return [*(example.encoded for example in examples), *self.data.mismatched]


def read_inputs(
    rollouts: Iterable[Rollout],
    heldout: Iterable[Rollout],
    model: Path,
    config: TrainConfig,
    load: LoadOptions,
    *,
    seed: int,
) -> Inputs:
    """Encode rollouts with a model's tokenizer; its weights are not read.

    Args:
        rollouts: Graded responses (with step labels for step objectives).
        heldout: Graded responses of other prompts; may be none.
        model: Directory or GGUF file of the initial weights.
        seed: Seed of pairs and of what is balanced away.

    Raises:
        UserError: They cannot be used as asked.
    """
    tokenizer = load_tokenizer(model, trust_remote_code=load.trust_remote_code, chat=load.chat)
    objective = get_objective(config.objective)
    is_by_prompt = objective.paired or config.balance == "instruction"
    rollouts, heldout = list(one_prompt_each(rollouts) if is_by_prompt else rollouts), list(heldout)
    rule = config.rule
    if rule.kind == "auto":
        rule = choose_rule(rollout.response for rollout in rollouts)
    longest = longest_sequence(model, config, load)
    encoding = get_kind(config.family).make_encoding(tokenizer, rule, longest, _separator(model, config))
    data = make_training_set(rollouts, encoding, objective, config, seed=seed)
    counts: dict[str, int] = {}
    examples = encode_examples(
        heldout, encoding, objective=get_objective("ce"), over_long=config.over_long, counts=counts
    )
    if counts:
        check_distinguishes(examples, counts, where="--dev")
        counts["examples"] = len(examples)
    if shared := shared_problems(heldout, rollouts):
        warn(
            f"{quantity(len(shared), 'held-out problem')}, first {shared[0]!r}, "
            f"{agree(len(shared), 'is', 'are')} trained on too: held-out metrics are too optimistic, "
            "and so is the choice of weights"
        )
    data.counts.update({HELDOUT + name: number for name, number in counts.items()})
    return Inputs(tokenizer=tokenizer, encoding=encoding, step_rule=str(rule), data=data, heldout=examples)


def _separator(model: Path, config: TrainConfig) -> str | None:
    """As configured, else that of the classifier that training starts from."""
    if config.step_separator is not None:
        return unescape(config.step_separator)
    if not PRMCard.exists(model):
        return None
    card = PRMCard.read(model)
    return card.step_separator if card.family == config.family else None


def longest_sequence(model: Path, config: TrainConfig, load: LoadOptions) -> int | None:
    """Most tokens of a sequence: as configured, at most what the model takes.

    Raises:
        UserError: More is asked for.
    """
    context = context_length(load_config(model, load))
    if config.max_tokens is not None and context is not None and config.max_tokens > context:
        raise UserError(
            f"{config.max_tokens} is more than the model's context of {context} tokens",
            where="--max-tokens",
            hint="lower it, or use a model with a longer context",
        )
    return config.max_tokens or context

"""Training objectives: pure functions of one typed record.

Legend: ``u`` is a response's reward in nats times beta, ``l`` its label (1 right, 0 wrong). Rows of a
record are responses; paired objectives read them as chosen, rejected, chosen, rejected, ... A new
objective is one function and one line in :data:`OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from stepcredit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Constants of the objectives that have some.

    Attributes:
        right_weight: KTO: weight of right responses.
        wrong_weight: KTO: weight of wrong responses.
        prefix_weight: ``ce-prefix``: weight of the prefix term beside CE.
        prefix_margin: Prefix terms: distance from 0 that a normalised prefix value should exceed.
        prefix_beta: Prefix terms: scale of the mean log-ratio of a prefix (takes the place of beta).
        pair_scale: ``pair-margin``: scale of the difference of two rewards.
        pair_margin: ``pair-margin``: what the scaled difference should exceed.
    """

    right_weight: float = 1.0
    wrong_weight: float = 1.0
    prefix_weight: float = 1.0
    prefix_margin: float = 5.0
    prefix_beta: float = 10.0
    pair_scale: float = 0.2
    pair_margin: float = 2.0


@dataclass(frozen=True, kw_only=True)
class ObjectiveInput:
    """What an objective may use.

    Attributes:
        rewards: ``u``, shape (responses,): beta times the summed log-ratio, or a head's output.
        labels: ``l``, shape (responses,), in [0, 1].
        lengths: Number of scored tokens, shape (responses,).
        beta: Scale of the log-ratios; 1 for heads.
        log_ratios: Policy minus reference log-probability of each scored token in nats, shape
            (responses, tokens), zero after a response's end; ``None`` for heads.
        head_values: A head's output at each scored token, same shape; ``None`` for implicit models.
        token_targets: Label of the value at a token (a step's label at its last token), NaN where there
            is none, shape (responses, tokens).
        mismatched_rewards: Rewards of responses under prompts that they do not answer, over the *global*
            batch and without gradient (KTO's estimate of the KL divergence).
        batch_rewards: ``u`` over the global batch, without gradient (BCO's shift).
        batch_labels: ``l`` over the global batch.
    """

    rewards: Float[Tensor, " responses"]
    labels: Float[Tensor, " responses"]
    lengths: Int[Tensor, " responses"]
    beta: float = 1.0
    log_ratios: Float[Tensor, "responses tokens"] | None = None
    head_values: Float[Tensor, "responses tokens"] | None = None
    token_targets: Float[Tensor, "responses tokens"] | None = None
    mismatched_rewards: Float[Tensor, " mismatched"] | None = None
    batch_rewards: Float[Tensor, " batch"] | None = None
    batch_labels: Float[Tensor, " batch"] | None = None
    settings: ObjectiveSettings = field(default_factory=ObjectiveSettings)

    @property
    def chosen(self) -> Float[Tensor, " pairs"]:
        """Rewards of the chosen responses of a paired record."""
        return self.rewards[0::2]

    @property
    def rejected(self) -> Float[Tensor, " pairs"]:
        """Rewards of the rejected responses of a paired record."""
        return self.rewards[1::2]

    @property
    def token_mask(self) -> Float[Tensor, "responses tokens"]:
        """1 at scored tokens, 0 after the end of a response."""
        width = self._tokens().shape[1]
        positions = torch.arange(width, device=self.lengths.device)
        return (positions < self.lengths[:, None]).to(self.rewards.dtype)

    @property
    def values(self) -> Float[Tensor, "responses tokens"]:
        """Value after each token: q_t (beta times the cumulative log-ratio), or the head's output."""
        if self.head_values is not None:
            return self.head_values
        return self.beta * self._tokens().cumsum(dim=1)

    def _tokens(self) -> Tensor:
        tokens = self.log_ratios if self.head_values is None else self.head_values
        assert tokens is not None, "the objective needs token values"
        return tokens


@dataclass(frozen=True, kw_only=True)
class ObjectiveOutput:
    """What an objective says.

    Attributes:
        losses: One loss per unit (a response, or a pair for paired objectives).
        baseline: What rewards were compared with (KTO's z, BCO's shift), where there is such a thing.
    """

    losses: Float[Tensor, " units"]
    baseline: Float[Tensor, ""] | None = None


def response_rewards(
    log_ratios: Float[Tensor, "responses tokens"], beta: float
) -> Float[Tensor, " responses"]:
    """``u = beta * sum_t log-ratio_t``, summed in float32 or better."""
    return beta * log_ratios.to(torch.promote_types(log_ratios.dtype, torch.float32)).sum(dim=1)


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy on logits, in the logits' own precision."""
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")


def cross_entropy(inputs: ObjectiveInput) -> ObjectiveOutput:
    """``-[l log sigmoid(u) + (1 - l) log sigmoid(-u)]`` (arXiv:2412.01981), on logits."""
    return ObjectiveOutput(losses=_bce(inputs.rewards, inputs.labels))


def dpo(inputs: ObjectiveInput) -> ObjectiveOutput:
    """``-log sigmoid(u_chosen - u_rejected)`` (arXiv:2305.18290)."""
    return ObjectiveOutput(losses=-functional.logsigmoid(inputs.chosen - inputs.rejected))


def ipo(inputs: ObjectiveInput) -> ObjectiveOutput:
    """``(h - 1 / (2 beta))^2``, h the difference of the mean log-ratios per token (arXiv:2310.12036, Eq. 17).

    Sums would make the target depend on length; the mean per token is what the authors use.
    """
    mean_log_ratio = inputs.rewards / inputs.beta / inputs.lengths
    difference = mean_log_ratio[0::2] - mean_log_ratio[1::2]
    return ObjectiveOutput(losses=(difference - 1 / (2 * inputs.beta)) ** 2)


def nca(inputs: ObjectiveInput) -> ObjectiveOutput:
    """``-log sigmoid(u_c) - 0.5 log sigmoid(-u_c) - 0.5 log sigmoid(-u_r)`` (arXiv:2402.05369)."""
    losses = (
        -functional.logsigmoid(inputs.chosen)
        - 0.5 * functional.logsigmoid(-inputs.chosen)
        - 0.5 * functional.logsigmoid(-inputs.rejected)
    )
    return ObjectiveOutput(losses=losses)


def kto(inputs: ObjectiveInput) -> ObjectiveOutput:
    """``w_l (1 - sigmoid(u - z))`` for right, ``w_l (1 - sigmoid(z - u))`` for wrong (arXiv:2402.01306).

    ``z = max(0, mean of the mismatched rewards)`` over the global batch, without gradient.
    """
    assert inputs.mismatched_rewards is not None, "KTO needs the mismatched rewards"
    baseline = inputs.mismatched_rewards.detach().mean().clamp(min=0)
    distance = inputs.rewards - baseline
    settings, labels = inputs.settings, inputs.labels
    losses = settings.right_weight * labels * torch.sigmoid(-distance)
    losses = losses + settings.wrong_weight * (1 - labels) * torch.sigmoid(distance)
    return ObjectiveOutput(losses=losses, baseline=baseline)


def bco(inputs: ObjectiveInput) -> ObjectiveOutput:
    """CE on ``u - d``, ``d = (mean u of right + mean u of wrong) / 2`` (arXiv:2404.04656).

    The means are over the global batch, without gradient; a batch with one class has only that mean.
    """
    assert inputs.batch_rewards is not None, "BCO needs the rewards of the global batch"
    assert inputs.batch_labels is not None, "BCO needs the labels of the global batch"
    rewards, right = inputs.batch_rewards.detach(), inputs.batch_labels > 0.5
    means = [rewards[mask].mean() for mask in (right, ~right) if bool(mask.any())]
    shift = torch.stack(means).mean()
    losses = _bce(inputs.rewards - shift, inputs.labels)
    return ObjectiveOutput(losses=losses, baseline=shift)


def bco_pair(inputs: ObjectiveInput) -> ObjectiveOutput:
    """``-log sigmoid(u_c) - log sigmoid(-u_r)``: BCO without a shift, which is CE summed over a pair."""
    return ObjectiveOutput(
        losses=-functional.logsigmoid(inputs.chosen) - functional.logsigmoid(-inputs.rejected)
    )


def pair_margin(inputs: ObjectiveInput) -> ObjectiveOutput:
    """``-log sigmoid(s (u_chosen - u_rejected) - m)``, s ``pair_scale`` and m ``pair_margin``.

    The loss of Q-RM (arXiv:2505.23363) where ``u`` is the mean of a response's token values.
    """
    difference = inputs.settings.pair_scale * (inputs.chosen - inputs.rejected)
    return ObjectiveOutput(losses=-functional.logsigmoid(difference - inputs.settings.pair_margin))


def prefix(inputs: ObjectiveInput) -> ObjectiveOutput:
    """The outcome as the target of every prefix (IPVRM, arXiv:2604.13197, Eq. 9), averaged over its tokens.

    With v_t the mean log-ratio of the first t tokens times ``prefix_beta`` and m the margin:
    ``-[l log sigmoid(v_t - m) + (1 - l) log sigmoid(-v_t - m)]``.
    """
    assert inputs.log_ratios is not None, "prefix supervision needs log-ratios"
    settings, mask = inputs.settings, inputs.token_mask
    prefix_lengths = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    values = settings.prefix_beta * inputs.log_ratios.cumsum(dim=1) / prefix_lengths
    labels = inputs.labels[:, None]
    losses = -labels * functional.logsigmoid(values - settings.prefix_margin)
    losses = losses - (1 - labels) * functional.logsigmoid(-values - settings.prefix_margin)
    return ObjectiveOutput(losses=(losses * mask).sum(dim=1) / inputs.lengths)


def cross_entropy_with_prefixes(inputs: ObjectiveInput) -> ObjectiveOutput:
    """CE on the whole response plus ``prefix_weight`` times :func:`prefix`."""
    losses = cross_entropy(inputs).losses + inputs.settings.prefix_weight * prefix(inputs).losses
    return ObjectiveOutput(losses=losses)


def token_cross_entropy(inputs: ObjectiveInput) -> ObjectiveOutput:
    """The outcome as the target of the value at every token, averaged over a response's tokens.

    For value heads: the outcome-supervised verifier (arXiv:2110.14168), and the token-level value model.
    """
    targets = inputs.labels[:, None].expand_as(inputs.values)
    losses = _bce(inputs.values, targets)
    return ObjectiveOutput(losses=(losses * inputs.token_mask).sum(dim=1) / inputs.lengths)


def step_cross_entropy(inputs: ObjectiveInput) -> ObjectiveOutput:
    """CE of the value at each step's last token with the step's label, averaged over a response's steps.

    For step PRMs, and for the second stage of the implicit PRM. Soft labels are allowed.
    """
    losses, labelled = _step_losses(inputs)
    return ObjectiveOutput(losses=losses.sum(dim=1) / labelled.sum(dim=1).clamp(min=1))


def label_cross_entropy(inputs: ObjectiveInput) -> ObjectiveOutput:
    """As :func:`step_cross_entropy`, but each label counts alike: averaged over the batch's labels.

    So a response with many steps weighs more; it is the loss of TRL's former ``PRMTrainer``.
    """
    losses, _ = _step_losses(inputs)
    return ObjectiveOutput(losses=losses.sum(dim=1))


def _step_losses(inputs: ObjectiveInput) -> tuple[Float[Tensor, "responses tokens"], Tensor]:
    """CE of each labelled value, zero elsewhere, and which are labelled."""
    assert inputs.token_targets is not None, "the step objective needs step labels"
    labelled = ~inputs.token_targets.isnan()
    targets = inputs.token_targets.nan_to_num(0.0)
    return _bce(inputs.values, targets) * labelled, labelled


@dataclass(frozen=True)
class Objective:
    """An objective and what it must be given.

    Attributes:
        paired: Its units are pairs of a right and a wrong response to one prompt.
        needs_mismatched: It reads ``mismatched_rewards``.
        needs_batch_rewards: It reads ``batch_rewards`` and ``batch_labels``.
        needs_step_labels: It reads ``token_targets``.
        per_label: Its mean is over the labels of a batch, not over its units.
    """

    function: Callable[[ObjectiveInput], ObjectiveOutput]
    paired: bool = False
    needs_mismatched: bool = False
    needs_batch_rewards: bool = False
    needs_step_labels: bool = False
    per_label: bool = False


OBJECTIVES: Mapping[str, Objective] = {
    "ce": Objective(cross_entropy),
    "dpo": Objective(dpo, paired=True),
    "kto": Objective(kto, needs_mismatched=True),
    "nca": Objective(nca, paired=True),
    "ipo": Objective(ipo, paired=True),
    "bco": Objective(bco, needs_batch_rewards=True),
    "bco-pair": Objective(bco_pair, paired=True),
    "pair-margin": Objective(pair_margin, paired=True),
    "ce-prefix": Objective(cross_entropy_with_prefixes),
    "prefix": Objective(prefix),
    "token-ce": Objective(token_cross_entropy),
    "step-ce": Objective(step_cross_entropy, needs_step_labels=True),
    "label-ce": Objective(label_cross_entropy, needs_step_labels=True, per_label=True),
}


def get_objective(name: str) -> Objective:
    """The objective called ``name``.

    Raises:
        UserError: There is none.
    """
    if name not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise UserError(f"{name!r} is not an objective", where="--objective", hint=f"use one of: {known}")
    return OBJECTIVES[name]

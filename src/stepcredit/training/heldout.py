"""What held-out responses say of a reward model while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stepcredit.stats import auc, pearson, reliability, sigmoid

HELDOUT_METRICS = {
    "auc": "outcome AUC",
    "pair_accuracy": "right above wrong within a prompt",
    "calibration_error": "calibration error of sigmoid(reward)",
    "reward_right": "mean reward of right responses",
    "reward_wrong": "mean reward of wrong responses",
    "length_correlation": "correlation of reward and length",
    "kl_to_reference": "KL to the reference (nats per response)",
}
"""Names of the metrics, and what they are called where people read them."""

_DECIMALS = 5
"""Logits closer than half of the last decimal are ties."""
_LOG_RATIO_DECIMALS = 4
"""As for logits; sums over many tokens carry more noise."""


def heldout_metrics(
    rewards: Float[np.ndarray, " responses"],
    labels: Float[np.ndarray, " responses"],
    prompt_ids: Sequence[str],
    lengths: Float[np.ndarray, " responses"],
    log_ratio_sums: Float[np.ndarray, " responses"] | None = None,
) -> dict[str, float]:
    """Metrics of response rewards.

    Args:
        rewards: Finite.
        labels: 1 right, 0 wrong.
        lengths: Scored tokens of each response.
        log_ratio_sums: Sum of each response's log-ratios in nats, for implicit models, whose rewards are beta
            times it; these are then what is ranked, whatever beta is.

    Returns:
        ``auc`` over all responses; ``pair_accuracy``: share of (right, wrong) pairs of one prompt that
        are in the right order, ties half; ``calibration_error`` of sigmoid(reward) against the label;
        ``reward_right`` and ``reward_wrong``: class means; ``length_correlation`` of reward and length;
        ``kl_to_reference``: mean over responses of log reference - log policy, in nats, which estimates
        KL(reference || policy) where the responses were drawn from the reference. What cannot be computed
        (one class only) is left out.
    """
    right = np.asarray(labels) > 0.5
    # A model that has not moved yet gives rounding noise, which must not look like an order.
    if log_ratio_sums is None:
        ranked = np.round(np.asarray(rewards, dtype=np.float64), _DECIMALS)
    else:
        ranked = np.round(np.asarray(log_ratio_sums, dtype=np.float64), _LOG_RATIO_DECIMALS)
    metrics = {
        "auc": auc(ranked, right),
        "pair_accuracy": pair_accuracy(ranked, right, prompt_ids),
        "calibration_error": reliability(sigmoid(np.asarray(rewards)), right).error,
        "reward_right": _mean(rewards[right]),
        "reward_wrong": _mean(rewards[~right]),
        "length_correlation": pearson(np.asarray(rewards), np.asarray(lengths)),
    }
    if log_ratio_sums is not None:
        metrics["kl_to_reference"] = float(-np.mean(log_ratio_sums))
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


WHAT_TO_TRY = (
    "try a higher or lower --learning-rate or more --epochs, check that --dev is graded like the training "
    "data, or give it more problems"
)
"""Where the kept weights are no better than chance."""


def no_better_than_chance(metrics: Mapping[str, float]) -> str | None:
    """What to say of weights that do not tell right from wrong on held-out data; ``None`` if they do."""
    area = metrics.get("auc", 1.0)
    if area > 0.5:
        return None
    word = "no better" if area == 0.5 else "worse"
    return f"the kept weights are {word} than chance on held-out data (AUC {area:.3f})"


def pair_accuracy(
    rewards: Float[np.ndarray, " responses"], right: np.ndarray, prompt_ids: Sequence[str]
) -> float:
    """Share of (right, wrong) pairs within prompts with the right one above; ties half; NaN without pairs."""
    groups: dict[str, list[int]] = {}
    for index, prompt_id in enumerate(prompt_ids):
        groups.setdefault(prompt_id, []).append(index)
    ordered, pairs = 0.0, 0
    for members in groups.values():
        group, labels = np.asarray(rewards)[members], np.asarray(right)[members]
        size = int(labels.sum()) * int((~labels).sum())
        if size:
            ordered += auc(group, labels) * size
            pairs += size
    return ordered / pairs if pairs else math.nan


def _mean(values: Float[np.ndarray, " items"]) -> float:
    return float(np.mean(values)) if len(values) else math.nan

"""Step labels from completions: of n continuations of a prefix, k end with the right answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stepcredit.errors import DataError
from stepcredit.labelling import KINDS
from stepcredit.types import Rollout, StepLabel

FIELD = "monte_carlo"
"""Extra field of labelled rollouts: the counts, and the labels of every kind, one a labelled step."""

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a prefix's completions."""

    right: int
    total: int


def soft_labels(
    right: Int[np.ndarray, " prefixes"], total: Int[np.ndarray, " prefixes"]
) -> Float[np.ndarray, " prefixes"]:
    """Share of right completions: the estimate of E[outcome | prefix] (arXiv:2312.08935, Eq. 4)."""
    return np.asarray(right, np.float64) / np.asarray(total, np.float64)


def hard_labels(right: Int[np.ndarray, " prefixes"]) -> Float[np.ndarray, " prefixes"]:
    """1 where any completion is right: the estimate of max outcome (arXiv:2312.08935, Eq. 3)."""
    return (np.asarray(right) > 0).astype(np.float64)


def log_mean_exp_labels(
    right: Int[np.ndarray, " prefixes"], total: Int[np.ndarray, " prefixes"], beta: float
) -> Float[np.ndarray, " prefixes"]:
    """``beta * log mean exp(outcome / beta)``: what an implicit PRM's value estimates, in [0, 1].

    It lies between soft and hard labels, and tends to them as beta tends to infinity and to zero
    (arXiv:2412.01981, Proposition 3.2, with outcomes 0 and 1).

    Args:
        total: All completions, at least one.
        beta: Above 0.
    """
    share = soft_labels(right, total)
    with np.errstate(divide="ignore"):
        # exp(1 / beta) taken out of the mean, so that no small beta overflows.
        scaled = np.logaddexp(np.log(share), np.log1p(-share) - 1.0 / beta)
    labels: Float[np.ndarray, " prefixes"] = np.clip(1.0 + beta * scaled, 0.0, 1.0)
    return labels


def wilson_half_width(tally: Tally) -> float:
    """Half the width of the 95% Wilson interval of a share."""
    n, share = tally.total, tally.right / tally.total
    return _Z95 / (1 + _Z95**2 / n) * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))


def is_settled(tally: Tally, kind: str, tolerance: float) -> bool:
    """Whether more completions would hardly change the label.

    A hard label is settled by its first right completion; the others, and a hard label of 0, once the
    95% Wilson interval of the share reaches no further than ``tolerance`` to each side.
    """
    if tally.total == 0:
        return False
    return (kind == "hard" and tally.right > 0) or wilson_half_width(tally) <= tolerance


def label_rollout(rollout: Rollout, tallies: list[tuple[int, Tally]], *, kind: str, beta: float) -> Rollout:
    """The rollout with step labels of one kind, and the other kinds in its extras.

    Args:
        tallies: (end of the step, its prefix's tally) in order; steps without completions are left out.
        kind: ``soft``, ``hard`` or ``log-mean-exp``.
    """
    known = [(end, tally) for end, tally in tallies if tally.total]
    if not known:
        return without_labels(rollout, FIELD)
    right = np.array([tally.right for _, tally in known])
    total = np.array([tally.total for _, tally in known])
    content = {
        "end": [end for end, _ in known],
        "right": right.tolist(),
        "completions": total.tolist(),
        "soft": soft_labels(right, total).tolist(),
        "hard": hard_labels(right).tolist(),
        "log-mean-exp": log_mean_exp_labels(right, total, beta).tolist(),
        "beta": beta,
    }
    return with_labels(replace(rollout, extras={**rollout.extras, FIELD: content}), kind)


def without_labels(rollout: Rollout, field: str) -> Rollout:
    """A rollout that cannot be labelled, without labels of an earlier run and what ``field`` says of them."""
    extras = {name: value for name, value in rollout.extras.items() if name != field}
    return replace(rollout, step_labels=None, extras=extras)


def with_labels(rollout: Rollout, kind: str) -> Rollout:
    """A labelled rollout with its step labels of another kind.

    Raises:
        DataError: It has no Monte-Carlo labels.
    """
    content: Any = rollout.extras.get(FIELD)
    if kind not in KINDS or not isinstance(content, dict) or kind not in content:
        raise DataError(
            f"has no {kind} labels", where=rollout.id, hint="label it with: stepcredit label math-shepherd"
        )
    labels = zip(content["end"], content[kind], strict=True)
    return replace(rollout, step_labels=tuple(StepLabel(end, label) for end, label in labels))

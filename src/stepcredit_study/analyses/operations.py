"""What a model's data and training took, by the ledgers of the runs behind it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepcredit.data import read_rollouts
from stepcredit.runs import read_manifest

PARTS = ("collection", "labelling", "training")
UNSHARED = " (unshared)"
"""After the name of a part: what it takes where nothing is shared between responses."""


def operations(
    data: Path,
    labels: Path | None,
    model: Path,
    *,
    paired: bool,
    has_reference: bool,
    mismatched: bool = False,
) -> dict[str, float]:
    """Floating-point operations of collecting, labelling and training.

    They are 2 a parameter and token forward and 6 in training, as in :class:`~stepcredit.runs.Ledger`.
    Passes over development problems are left out: how often one looks at those is a free choice, and they
    would weigh most where there is least data. Shared, a prompt is read once for all of its responses, and
    a step prefix that several responses begin with is completed once.

    Args:
        data: Graded training responses, each with its tokens.
        labels: The same with step labels, from Monte-Carlo completions or from a verifier.
        paired: Only instructions with right and wrong responses were trained on.
        has_reference: The reference's log-probabilities of the distinct responses were computed once.
        mismatched: Policy and reference read each prompt with another one's response too, as KTO does.

    Returns:
        Each of :data:`PARTS`, and each followed by :data:`UNSHARED`.
    """
    tokens = Tokens.of(data, paired=paired)
    trained = _ledger(model)
    forward = 2.0 * trained["model_parameters"]
    training = 3 * forward * trained["trained_tokens"]
    if has_reference:
        training += forward * tokens.distinct * (2 if mismatched else 1)
    if mismatched:
        training += forward * trained["trained_tokens"]
    labelling = unshared = 0.0
    if labels is not None:
        labelled = _ledger(labels)
        if labelled["trained_tokens"]:  # a verifier, which then reads every response
            labelling = unshared = 3 * forward * labelled["trained_tokens"] + forward * tokens.whole
        else:
            labelling, unshared = labelled["flops"], _ledger(labels, "ledger_without_sharing")["flops"]
    return {
        "collection": forward * (tokens.prompts_once + tokens.generated),
        "collection" + UNSHARED: forward * tokens.whole,
        "labelling": labelling,
        "labelling" + UNSHARED: unshared,
        "training": training,
        "training" + UNSHARED: training,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of training responses.

    Attributes:
        prompts_once: Of all prompts, each once.
        generated: Of all responses.
        whole: Of all sequences of prompt and response.
        distinct: Of the different sequences that are trained on.
    """

    prompts_once: int
    generated: int
    whole: int
    distinct: int

    @classmethod
    def of(cls, graded: Path, *, paired: bool) -> Tokens:
        """Counted from the rows, which say what each took."""
        prompts: dict[str, int] = {}
        kinds: dict[str, set[bool]] = {}
        sequences: dict[tuple[str, str], int] = {}
        generated = whole = 0
        for rollout in read_rollouts(graded):
            read = int(rollout.extras["num_prompt_tokens"])
            drawn = int(rollout.extras["num_generated_tokens"])
            prompts[rollout.prompt_id] = read
            kinds.setdefault(rollout.prompt_id, set()).add(bool(rollout.correct))
            sequences[rollout.prompt_id, rollout.response] = read + drawn
            generated += drawn
            whole += read + drawn
        used = {prompt for prompt, seen in kinds.items() if len(seen) == 2 or not paired}
        distinct = sum(length for (prompt, _), length in sequences.items() if prompt in used)
        return cls(prompts_once=sum(prompts.values()), generated=generated, whole=whole, distinct=distinct)


def _ledger(output: Path, name: str = "ledger") -> Mapping[str, float]:
    ledger: Mapping[str, float] = (read_manifest(output) or {})[name]
    return ledger


def share_to_reach(curve: Sequence[tuple[float, float]], target: float) -> float:
    """Least x at which a curve reaches ``target``, linear in log x between its points.

    Args:
        curve: (x, y), x rising.

    Returns:
        Infinity if it does not; the first x if it begins there.
    """
    if curve[0][1] >= target:
        return curve[0][0]
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if y1 >= target:
            return float(x0 * (x1 / x0) ** ((target - y0) / (y1 - y0)))
    return math.inf

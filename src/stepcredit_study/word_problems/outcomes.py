"""The preregistered outcomes of one test set, with intervals over its problems.

1. AUC of right against wrong within a problem, length regressed out; against .5, shortness and the
   reference's log-probability.
2. Weighted vote minus plain vote.
3. AUC of first arithmetic slips by step reward, beside the reference's.

Best-of-n minus majority is secondary. A problem's value is the mean over the seeds of a method's training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from stepcredit.stats import ProblemBootstrap, VoteSubsets, majority_vote, pass_at_n, sigmoid
from stepcredit_study.analyses.grouped_auc import Grouped, grouped_auc
from stepcredit_study.analyses.within_problem import as_list, auc_difference, pooled_auc, without_length
from stepcredit_study.word_problems.evidence import REFERENCE, SHORTNESS, Evidence
from stepcredit_study.word_problems.scale import FEW_PROBLEMS, FEW_RESPONSES

NUM_DRAWS = 2000
_RESAMPLES = 100


def outcomes(evidence: Evidence, temperatures: Mapping[str, float]) -> dict[str, Any]:
    """Everything that is reported of a test set, JSON-able; intervals are ``[estimate, low, high]``.

    Args:
        temperatures: Method to the temperature of its vote; methods without one do not vote.
    """
    samples = evidence.bed.samples
    bootstrap = ProblemBootstrap(samples.num_problems, num_draws=NUM_DRAWS)
    single = pass_at_n(samples.correct.sum(axis=1), samples.num_responses, 1)
    plain = {
        n: majority_vote(samples.answers, samples.correct, samples.num_responses, (n,))[0]
        for n in evidence.bed.ns
    }
    steps = evidence.steps
    measured: dict[str, Any] = {
        "problems": samples.num_problems,
        "responses": int(samples.num_responses.sum()),
        "distinct": len(evidence.bed.distinct),
        "templates": evidence.num_templates,
        "right": int(samples.correct.sum()),
        "problems with a right response": int(samples.correct.any(axis=1).sum()),
        "pass@1": as_list(bootstrap.interval(single)),
        "majority": {str(n): as_list(bootstrap.interval(values)) for n, values in plain.items()},
        "oracle": {str(n): evidence.bed.pass_at(n) for n in evidence.bed.ns},
        "wrong responses with a slip": steps.share_with_slip,
        "operands from nowhere in wrong responses": steps.share_foreign,
        "first slips": int(steps.is_slip.sum()),
        "right steps": int((~steps.is_slip).sum()),
        "first slips by position": as_list(
            grouped_auc(Grouped.one(steps.is_slip, steps.problems), [steps.positions * 1.0], bootstrap)
        ),
        "methods": {},
    }
    for method in evidence.methods:
        row = {"auc": _aucs(evidence, method, bootstrap), "best-of-n": {}, "weighted vote": {}}
        for n, values in plain.items():
            best = _best_of_n(evidence, method, n)
            row["best-of-n"][str(n)] = {
                "accuracy": as_list(bootstrap.interval(best)),
                "minus majority": as_list(bootstrap.interval(best - values)),
            }
            if method in temperatures:
                voted = _weighted_vote(evidence, method, n, temperatures[method])
                row["weighted vote"][str(n)] = {
                    "accuracy": as_list(bootstrap.interval(voted)),
                    "minus plain": as_list(bootstrap.interval(voted - values)),
                    "minus best-of-n": as_list(bootstrap.interval(voted - best)),
                }
        if method in steps.rewards:
            row["slips"] = _slips(evidence, method, bootstrap)
        if variants := _variants(evidence, method, bootstrap):
            row["variants"] = variants
        measured["methods"][method] = row
    return measured


def _aucs(evidence: Evidence, method: str, bootstrap: ProblemBootstrap) -> dict[str, Any]:
    pairs = evidence.pairs(method)
    row = {
        "length regressed out": as_list(pooled_auc(pairs, bootstrap)),
        "raw": as_list(pooled_auc(evidence.pairs(method, lengths_removed=False), bootstrap)),
    }
    for other in evidence.methods:
        if method not in (other, SHORTNESS):
            difference = auc_difference(pairs, evidence.pairs(other), bootstrap)
            row[f"minus {other}"] = as_list(difference)
    return row


def _variants(evidence: Evidence, method: str, bootstrap: ProblemBootstrap) -> dict[str, Any]:
    """AUCs of a method's variants, and minus those of the usual model of the same seed and the reference."""
    names = [name for known, name in evidence.variants if known == method]
    pairs = {name: evidence.variant_pairs(method, name) for name in names}
    rows: dict[str, Any] = {}
    for name, own in pairs.items():
        others = {"usual": evidence.pairs(method)[:1], REFERENCE: evidence.pairs(REFERENCE)}
        if name == FEW_PROBLEMS and FEW_RESPONSES in pairs:
            others[FEW_RESPONSES] = pairs[FEW_RESPONSES]
        rows[name] = {"auc": as_list(pooled_auc(own, bootstrap))}
        for other, minus in others.items():
            rows[name][f"minus {other}"] = as_list(auc_difference(own, minus, bootstrap))
    return rows


def _best_of_n(evidence: Evidence, method: str, n: int) -> Float[np.ndarray, " problems"]:
    values = [evidence.bed.best_of_n(scores)[n] for scores in evidence.scores(method)]
    mean: Float[np.ndarray, " problems"] = np.mean(values, axis=0)
    return mean


def _weighted_vote(
    evidence: Evidence, method: str, n: int, temperature: float
) -> Float[np.ndarray, " problems"]:
    samples = evidence.bed.samples
    subsets = VoteSubsets(
        samples.answers, samples.correct, samples.num_responses, n, num_draws=_RESAMPLES, seed=n
    )
    values = [subsets.vote(sigmoid(scores / temperature))[0].expected for scores in evidence.scores(method)]
    mean: Float[np.ndarray, " problems"] = np.mean(values, axis=0)
    return mean


def _slips(evidence: Evidence, method: str, bootstrap: ProblemBootstrap) -> dict[str, Any]:
    """Slips are what rewards should be low for.

    Longer steps slip more often, and a first slip comes after all right steps that it is compared with in
    its response. So the same is given with a step's length regressed out, and for steps at the same
    position only, neither of which was decided beforehand.
    """
    steps = evidence.steps
    items = Grouped.one(steps.is_slip, steps.problems)
    in_place = Grouped(steps.is_slip, steps.problems, steps.positions)
    rewards = {name: [-values for values in steps.rewards[name]] for name in (method, REFERENCE, SHORTNESS)}
    row = {
        "auc": as_list(grouped_auc(items, rewards[method], bootstrap)),
        "at the same position": as_list(grouped_auc(in_place, rewards[method], bootstrap)),
    }
    if method == SHORTNESS:
        return row
    everywhere = np.zeros_like(steps.problems)
    freed = {
        name: [without_length(values, steps.lengths, everywhere) for values in rewards[name]]
        for name in (method, REFERENCE)
    }
    row["length regressed out"] = as_list(grouped_auc(items, freed[method], bootstrap))
    if method != REFERENCE:
        row |= {
            f"minus {other}": as_list(grouped_auc(items, rewards[method], bootstrap, minus=rewards[other]))
            for other in (REFERENCE, SHORTNESS)
        }
        row["length regressed out, minus reference"] = as_list(
            grouped_auc(items, freed[method], bootstrap, minus=freed[REFERENCE])
        )
    return row

"""Estimators, intervals and tests, on NumPy arrays."""

from stepcredit.stats.bootstrap import Interval, ProblemBootstrap
from stepcredit.stats.classification import (
    Reliability,
    auc,
    average_precision,
    clustered_auc_parts,
    f1,
    fit_log_odds,
    midranks,
    pearson,
    reliability,
    sigmoid,
    spearman,
)
from stepcredit.stats.significance import holm, paired_p_values, student_quantile
from stepcredit.stats.subsets import best_of_first_n, best_of_n, pass_at_n, rank_weights, response_mask
from stepcredit.stats.votes import NO_ANSWER, majority_vote
from stepcredit.stats.weighted_votes import VoteEstimate, VoteSubsets, max_vote

__all__ = [
    "NO_ANSWER",
    "Interval",
    "ProblemBootstrap",
    "Reliability",
    "VoteEstimate",
    "VoteSubsets",
    "auc",
    "average_precision",
    "best_of_first_n",
    "best_of_n",
    "clustered_auc_parts",
    "f1",
    "fit_log_odds",
    "holm",
    "majority_vote",
    "max_vote",
    "midranks",
    "paired_p_values",
    "pass_at_n",
    "pearson",
    "rank_weights",
    "reliability",
    "response_mask",
    "sigmoid",
    "spearman",
    "student_quantile",
]

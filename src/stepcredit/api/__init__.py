"""The loop as functions: what the commands do, on records, data sets and frames.

Each function takes the options of its command as keyword arguments, by the names that ``--help`` shows, and
calls what the command calls. See ``docs/python.md``.
"""

from stepcredit.api.functions import evaluate_best_of_n, evaluate_steps, grade, sample, score, search, train
from stepcredit.api.outputs import RecordList, Rollouts, Scores, SearchedRollouts, TrainedModel

__all__ = [
    "RecordList",
    "Rollouts",
    "Scores",
    "SearchedRollouts",
    "TrainedModel",
    "evaluate_best_of_n",
    "evaluate_steps",
    "grade",
    "sample",
    "score",
    "search",
    "train",
]

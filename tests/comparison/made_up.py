"""A comparison of every kind of method."""

from __future__ import annotations

from typing import Any

from stepcredit.lab.policies import policy_path

RECIPE: dict[str, Any] = {
    "model": str(policy_path("mid")),
    "train": "train.jsonl",
    "dev": "dev.jsonl",
    "test": "test.jsonl",
    "collection": ["train.jsonl"],
    "n": [1, 4],
    "choose_at": 4,
    "settings": {"batch_size": 16, "epochs": 1, "step_rule": "newline", "beta": 0.5},
    "methods": [
        {
            "name": "ce",
            "train": {"objective": "ce"},
            "search": {"learning_rate": ["1e-4", "5e-4"]},
        },
        {
            "name": "step-labels",
            "train": {"family": "value-head", "objective": "step-ce"},
            "data": "labelled.jsonl",
            "search": {"learning_rate": [1e-4, 5e-4]},
        },
        {
            "name": "second-stage",
            "train": {"objective": "step-ce", "learning_rate": 1e-4},
            "data": "labelled.jsonl",
            "start_from": "ce",
            "search": {"epochs": [1, 2]},
        },
        {"name": "log-probability", "score": {"family": "log-probability", "aggregate": "mean"}},
        {"name": "chance", "baseline": "random"},
        {"name": "truth", "baseline": "oracle"},
    ],
}

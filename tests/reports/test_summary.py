from __future__ import annotations

import json
from pathlib import Path

from tests.reports.made_up import policy

from stepcredit.data import rollout_to_json, write_rows
from stepcredit.reports.summary import training_data
from stepcredit.types import Rollout


def test_findings_are_written_unrounded_with_both_ends_of_every_interval() -> None:
    content = policy(0.001).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["results"][0] == {
        "method": "pass",
        "scorer": None,
        "aggregate": None,
        "n": 1,
        "accuracy": 0.3 + 0.001,
        "low": 0.2 + 0.001,
        "high": 0.4 + 0.001,
        "resampling_error": 0.0,
    }
    assert content["differences"][0]["difference"] == -0.1234
    steps = content["localisation"]
    assert (steps["auc_low"], steps["auc"], steps["auc_high"]) == (0.96, 0.97531, 0.98)
    assert steps["reference_auc"] == 0.6789
    assert steps["histogram"] == {"edges": [-2.0, 0.0, 2.0], "right": [7, 63], "first_wrong": [29, 1]}


def test_training_data_are_counted_from_their_file(tmp_path: Path) -> None:
    graded = [
        Rollout(id=f"{prompt}/{number}", prompt_id=prompt, prompt="1+1=", response="2", correct=correct)
        for prompt, verdicts in {"a": (True, False, None), "b": (True,)}.items()
        for number, correct in enumerate(verdicts)
    ]
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, graded))
    data = training_data(tmp_path / "graded.jsonl")
    assert (data.num_problems, data.num_responses, data.correct_share) == (2, 4, 0.5)

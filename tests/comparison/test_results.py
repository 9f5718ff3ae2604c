from __future__ import annotations

import json
from pathlib import Path

from stepcredit.comparison.results import ComparisonResult


def test_intervals_that_are_missing_are_null() -> None:
    ends = {4: (1.0, float("nan"), float("nan"))}
    result = ComparisonResult(
        out=Path("out"), methods=(), references={"pass": ends}, comparisons=[], budget=1, choose_at=4
    )
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["references"] == {
        "pass": {"4": [1.0, None, None]}
    }

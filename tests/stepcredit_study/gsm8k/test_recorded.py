from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.data import read_rollouts
from stepcredit.errors import UserError
from stepcredit.lab.policies import policy_path
from stepcredit_study.gsm8k.recorded import TRAINING, Options, run


@pytest.mark.slow
def test_recorded_solutions_go_through_the_whole_loop(
    write_solutions: Callable[[Path, int], None], tmp_path: Path
) -> None:
    write_solutions(tmp_path / "solutions.jsonl", 24)
    options = Options(
        solutions=tmp_path / "solutions.jsonl",
        model=policy_path("mid"),
        out=tmp_path / "run",
        publish=tmp_path / "published",
        splits={"train": 12, "dev": 6, "test": 6},
        training=replace(TRAINING, precision="float32", learning_rate=2e-4, batch_size=16),
    )
    results = run(options)
    assert results["problems"] == {"train": 12, "dev": 6, "test": 6}
    assert set(results["outcome_auc"]["shortness"]) == {
        "all",
        *(f"within {policy}" for policy in "abcd"),
        "within problems",
    }
    rows = {(row["method"], row["n"]): row["accuracy"] for row in results["best_of_n"]["results"]}
    graded = list(read_rollouts(options.out / "test" / "graded.jsonl"))
    assert rows["pass", 1] == pytest.approx(sum(rollout.correct is True for rollout in graded) / len(graded))
    assert rows["pass", 4] == 1.0
    assert sorted(path.name for path in (tmp_path / "published").iterdir()) == [
        "README.md",
        "results.json",
        "train_log.jsonl",
        "training-manifest.json",
    ]
    published = (tmp_path / "published" / "training-manifest.json").read_text()
    assert str(tmp_path) not in json.dumps(json.loads(published)["inputs"])
    assert (tmp_path / "run" / "heat-map.html").is_file()


def test_another_number_of_problems_is_refused(
    write_solutions: Callable[[Path, int], None], tmp_path: Path
) -> None:
    write_solutions(tmp_path / "solutions.jsonl", 3)
    options = Options(solutions=tmp_path / "solutions.jsonl", model=policy_path("mid"), out=tmp_path / "run")
    with pytest.raises(UserError, match="holds 3 problems, not 660"):
        run(options)

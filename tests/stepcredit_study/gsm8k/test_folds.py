from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.data import read_rollouts
from stepcredit.errors import UserError
from stepcredit.lab.policies import policy_path
from stepcredit_study.gsm8k.folds import METHODS, TRAINING, Options, run

Write = Callable[[Path, int], None]


def options(write_solutions: Write, tmp_path: Path, num_problems: int = 12) -> Options:
    write_solutions(tmp_path / "solutions.jsonl", num_problems)
    return Options(
        solutions=tmp_path / "solutions.jsonl",
        model=policy_path("mid"),
        out=tmp_path / "run",
        folds=2,
        dev=3,
        rates=(1e-3,),
        training=replace(TRAINING, lora_rank=4, batch_size=8),
    )


@pytest.mark.slow
def test_every_problem_is_tested_once_by_a_model_that_never_saw_it(
    write_solutions: Write, tmp_path: Path
) -> None:
    wanted = options(write_solutions, tmp_path)
    results = run(wanted)
    assert results["problems"] == 12
    assert set(results["methods"]) == {"shortness", "reference", *METHODS}
    assert results["generators"] == 4
    parts = sorted((wanted.out / "store" / "part").glob("*.jsonl"))
    problems = {part.name: {rollout.prompt_id for rollout in read_rollouts(part)} for part in parts}
    tested = [chosen for name, chosen in problems.items() if name.startswith("test")]
    assert len(tested) == 2
    assert not tested[0] & tested[1]
    assert len(tested[0] | tested[1]) == 12
    trained = [chosen for name, chosen in problems.items() if name.startswith("train")]
    for chosen in trained:
        assert sum(not chosen & test for test in tested) == 1
    row = results["methods"]["implicit-ce"]
    low, high = row["within a generator"][1:]
    assert 0.0 <= low <= row["within a generator"][0] <= high <= 1.0
    assert {"within a generator, minus shortness", "within a problem, minus reference"} <= row.keys()
    assert run(wanted) == results


def test_too_few_problems_are_refused(write_solutions: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 problems are too few for 2 folds and 3 development problems"):
        run(options(write_solutions, tmp_path, 4))

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.data.reasoning_gym import TaskOptions
from stepcredit.errors import UserError
from stepcredit.generators.options import GeneratorOptions
from stepcredit.grading.reasoning_gym import FIELD, make_task
from stepcredit.pipelines import grade, sample

FAKE = GeneratorOptions(generator="fake")
SUMS = Path("reasoning-gym:chain_sum")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    out = tmp_path / "rollouts.jsonl"
    sample.run(sample.Options(prompts=SUMS, out=out, num_samples=1, policy=FAKE, overwrite=True, **options))
    return rows(out)


def test_the_tasks_problems_are_asked_and_each_row_says_which(tmp_path: Path) -> None:
    task = TaskOptions(task_size=4, task_seed=5, task_setting=("min_digits=2", "max_digits=2"))
    items = make_task("chain_sum", seed=5, size=4, settings={"min_digits": 2, "max_digits": 2})
    drawn = draw(tmp_path, task=task)
    assert [row["prompt"] for row in drawn] == [item["question"] for item in items]
    assert [row["answer"] for row in drawn] == [item["answer"] for item in items]
    assert drawn[2]["prompt_id"] == "chain_sum-5-000002"
    assert drawn[2][FIELD] == {
        "task": "chain_sum",
        "seed": 5,
        "size": 4,
        "settings": {"min_digits": 2, "max_digits": 2},
        "index": 2,
    }


def test_what_was_sampled_is_graded_by_the_tasks_scoring(tmp_path: Path) -> None:
    drawn = draw(tmp_path, task=TaskOptions(task_size=3))
    answered = tmp_path / "answered.jsonl"
    responses = (drawn[0]["answer"], "#### 1000000", f"#### {drawn[2]['answer']}")
    replaced = [
        {**row, "response": response, "response_token_ids": None}
        for row, response in zip(drawn, responses, strict=True)
    ]
    answered.write_text("".join(json.dumps(row) + "\n" for row in replaced), encoding="utf-8")
    out = tmp_path / "graded.jsonl"
    grade.run(grade.Options(rollouts=answered, grader="reasoning-gym", out=out, num_workers=1))
    assert [row["correct"] for row in rows(out)] == [True, False, True]


def test_another_seed_or_size_is_another_run(tmp_path: Path) -> None:
    draw(tmp_path, task=TaskOptions(task_size=2))
    with pytest.raises(UserError, match="made with other settings"):
        sample.run(
            sample.Options(
                prompts=SUMS,
                out=tmp_path / "rollouts.jsonl",
                num_samples=1,
                policy=FAKE,
                task=TaskOptions(task_size=3),
            )
        )


def test_a_limit_takes_the_first_problems(tmp_path: Path) -> None:
    assert len(draw(tmp_path, task=TaskOptions(task_size=5), limit=2)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_setting": ("min_digits",)}, r"--task-setting: 'min_digits' is not NAME=VALUE"),
        ({"task_setting": ("seed=3",)}, r"seed has an option of its own. Use --task-seed"),
        ({"task_size": 0}, r"--task-size: must be at least 1"),
    ],
)
def test_mistakes_in_the_tasks_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TaskOptions(**options)


def test_the_tasks_options_are_for_tasks_and_a_files_options_for_files(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match=r"--subset: is for files and data sets of the hub"):
        sample.Options(prompts=SUMS, out=out, policy=FAKE, subset="main")
    with pytest.raises(UserError, match=r"are for reasoning-gym:TASK only"):
        sample.Options(prompts=Path("p.jsonl"), out=out, policy=FAKE, task=TaskOptions(task_seed=1))
    with pytest.raises(UserError, match=r"there is no task 'chain_sums'"):
        sample.run(sample.Options(prompts=Path("reasoning-gym:chain_sums"), out=out, policy=FAKE))
    assert not out.exists()

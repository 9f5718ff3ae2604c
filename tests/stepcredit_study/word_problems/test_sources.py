from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from stepcredit.errors import DataError
from stepcredit_study.word_problems.command import source_of
from stepcredit_study.word_problems.sources import DEVELOPMENT, POLICY, TRAIN, Gsm8k, Templates


def write_files(folder: Path, num_train: int, num_test: int) -> None:
    for name, count in (("train", num_train), ("test", num_test)):
        rows = [
            {
                "id": f"{name}-{number}",
                "prompt": f"What is {number} + 1?",
                "answer": str(number + 1),
                "solution": f"It is {number}+1 = <<{number}+1={number + 1}>>{number + 1}.\n#### {number + 1}",
            }
            for number in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"gsm8k_{name}.jsonl").write_text(text, encoding="utf-8")


def test_gsm8ks_training_file_is_divided_and_its_test_file_is_tested_on(tmp_path: Path) -> None:
    write_files(tmp_path, 3300, 7)
    source = source_of(tmp_path)
    assert isinstance(source, Gsm8k)
    names = {
        split: [problem.prompt.id for problem in source.problems(split)]
        for split in ("test", DEVELOPMENT, TRAIN, POLICY)
    }
    assert [len(chosen) for chosen in names.values()] == [7, 200, 3000, 100]
    assert len({name for chosen in names.values() for name in chosen}) == 3307
    assert all(name.startswith("test") for name in names["test"])
    assert names[TRAIN] != sorted(names[TRAIN])
    assert [problem.prompt.id for problem in islice(source.problems(TRAIN), 5)] == names[TRAIN][:5]


def test_calculations_in_brackets_are_left_out_of_solutions(tmp_path: Path) -> None:
    write_files(tmp_path, 1, 2)
    problem = list(source_of(tmp_path).problems("test"))[1]
    assert (problem.question, problem.prompt.answer) == ("What is 1 + 1?", "2")
    assert problem.solution == "It is 1+1 = 2.\n#### 2"


def test_a_row_without_a_worked_solution_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, 1, 1)
    path = tmp_path / "gsm8k_test.jsonl"
    path.write_text('{"id": "t", "prompt": "What?", "answer": "2", "solution": "Two."}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"gsm8k_test.jsonl: prompt 't' has no worked solution that ends"):
        list(source_of(tmp_path).problems("test"))
    path.unlink()
    with pytest.raises(DataError, match=r"gsm8k_test.jsonl: no such file"):
        source_of(tmp_path)


def test_without_files_problems_come_from_templates() -> None:
    source = source_of(None)
    assert isinstance(source, Templates)
    assert set(source.test_sets) == {"known", "new"}
    assert next(source.problems("test-new")).prompt.id == "test-new-000000"

"""A study at sizes that run in seconds: made-up responses, everything after them is real."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from stepcredit.data import read_prompts, rollout_to_json, write_rows
from stepcredit.pipelines import sample
from stepcredit.types import Rollout
from stepcredit_study.word_problems.practice import arithmetic_problems
from stepcredit_study.word_problems.problems import SPLITS, problems
from stepcredit_study.word_problems.scale import TINY, VARIANTS, WordScale
from stepcredit_study.word_problems.sources import Templates


@pytest.fixture(scope="session")
def small_scale() -> WordScale:
    """Two generators' responses to a handful of problems."""
    return replace(
        TINY,
        steps=2,
        measured_every=1,
        least_pass=0.1,
        block=3,
        train_problems=4,
        train_responses=4,
        dev_problems=3,
        dev_responses=4,
        test_problems=4,
        other_test_problems=2,
        test_responses=6,
        ns=(2, 4),
        methods=("implicit-ce", "outcome-head"),
        variants=VARIANTS,
    )


@pytest.fixture
def made_up_responses(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Instead of sampling: worked solutions, most of them with a slip; the files that were asked for."""
    asked: list[Path] = []
    worked = {problem.prompt.id: problem for split in SPLITS for problem in islice(problems(split), 12)}
    worked |= {problem.prompt.id: problem for problem in islice(arithmetic_problems(), 12)}

    def run(options: sample.Options) -> None:
        asked.append(options.out)
        rows = []
        for prompt in read_prompts(options.prompts):
            for index in range(options.num_samples):
                random = Random(f"{prompt.id}/{index}/{options.policy.policy_name}")
                solution = worked[prompt.id].solution
                if random.random() < 0.6:
                    lines = solution.split("\n")
                    place = random.randrange(len(lines) - 1)
                    lines[place] = lines[place].replace("= ", f"= {random.randrange(1, 9)}", 1)
                    solution = "\n".join([*lines[:-1], f"#### {random.randrange(300, 304)}"])
                rollout = Rollout(
                    id=f"{prompt.id}:{index}",
                    prompt_id=prompt.id,
                    index=index,
                    prompt=prompt.prompt,
                    response=solution,
                    answer=prompt.answer,
                    finish_reason="stop",
                    policy=options.policy.policy_name,
                    extras={**prompt.extras, "num_prompt_tokens": 60, "num_generated_tokens": 40},
                )
                rows.append(rollout_to_json(rollout))
        write_rows(options.out, rows)

    monkeypatch.setattr(sample, "run", run)
    return asked


@pytest.fixture
def quick_grader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the task's own grader, whose workers take seconds to start, for each file."""
    monkeypatch.setattr(Templates, "grader", replace(Templates.grader, grader="numeric"))

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.stepcredit_study.word_problems.test_sources import write_files

from stepcredit.errors import UserError
from stepcredit.pipelines.driver import Store
from stepcredit_study.word_problems.command import source_of
from stepcredit_study.word_problems.fine_tuning import Recipe
from stepcredit_study.word_problems.policies import find_middle
from stepcredit_study.word_problems.scale import GSM8K

IN_THE_TRAINING_FILE = 7473


def test_gsm8ks_files_have_the_worked_solutions_that_its_scale_takes(tmp_path: Path) -> None:
    write_files(tmp_path, IN_THE_TRAINING_FILE, 1)
    worked = source_of(tmp_path).num_worked
    assert worked is not None
    assert GSM8K.steps * Recipe().solutions <= worked
    assert GSM8K.steps % GSM8K.measured_every == 0


def test_too_few_worked_solutions_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    write_files(tmp_path, 3220, 1)
    scale, out = replace(GSM8K, steps=3, measured_every=1), tmp_path / "policies"
    message = r"3 steps of fine-tuning take 24 worked solutions, and gsm8k leaves 20. Pass at most 2 steps"
    with pytest.raises(UserError, match=message):
        find_middle(source_of(tmp_path), tmp_path, out, Store(tmp_path), scale, lambda: True)
    assert not out.exists()

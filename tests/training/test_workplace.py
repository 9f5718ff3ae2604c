"""Never another run's checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.errors import UserError
from stepcredit.training.workplace import claim, work_directory


def test_checkpoints_of_other_settings_are_kept_unless_they_are_given_up(tmp_path: Path) -> None:
    work = work_directory(tmp_path / "prm")
    with claim(work, "one", overwrite=False):
        (work / "checkpoint-1").mkdir()
    with pytest.raises(UserError, match="other settings or inputs"), claim(work, "other", overwrite=False):
        pass
    assert (work / "checkpoint-1").is_dir()
    with claim(work, "one", overwrite=False):
        assert (work / "checkpoint-1").is_dir()
    with claim(work, "other", overwrite=True):
        assert [path.name for path in work.iterdir()] == ["settings_hash"]


def test_a_mistake_before_the_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    work = work_directory(tmp_path / "prm")
    with pytest.raises(UserError, match="nothing to train on"), claim(work, "one", overwrite=False):
        raise UserError("nothing to train on")
    assert not work.exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    work = work_directory(tmp_path / "prm")
    work.write_text("")
    with (
        pytest.raises(UserError, match="cannot be created as a directory"),
        claim(work, "one", overwrite=False),
    ):
        pass

from __future__ import annotations

from pathlib import Path

import pytest
from tests.reports.pages import parse

from stepcredit.errors import DataError
from stepcredit.reports.training_log import read_log, training_plots

LINES = """\
{"step": 10, "loss": 0.5, "grad_norm": 1.0}
{"step": 16, "heldout_auc": 0.75, "heldout_pair_accuracy": 0.7}

{"step": 20, "loss": 0.25, "heldout_auc": null}
"""


def write(path: Path, text: str) -> Path:
    target = path / "train_log.jsonl"
    target.write_text(text, encoding="utf-8")
    return target


def test_each_curve_has_the_steps_at_which_it_was_measured(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, LINES))
    assert log is not None
    assert list(log.loss) == [(10, 0.5), (20, 0.25)]
    assert list(log.heldout_auc) == [(16, 0.75)]


def test_no_log_is_not_an_error(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none.jsonl") is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "is not JSON"),
        ("3", "must be an object"),
        ('{"step": 1, "loss": "x"}', "'loss' should be a number"),
        ('{"loss": 1.0}', "'step' should be a number"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(DataError, match=rf"train_log\.jsonl:2: {complaint}"):
        read_log(write(tmp_path, '{"step": 1, "loss": 1.0}\n' + line))


def test_only_what_was_measured_is_drawn(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, LINES))
    assert log is not None
    loss, auc = (parse(str(plot)) for plot in training_plots(log))
    assert "Training loss" in loss.text
    assert "0.250" in loss.all("table")[0].text
    assert "0.750" in auc.all("table")[0].text
    only_loss = read_log(write(tmp_path, '{"step": 1, "loss": 1.0}'))
    assert only_loss is not None
    assert len(training_plots(only_loss)) == 1

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import DataError
from stepcredit.reports.examples import Example, ExampleStep
from stepcredit.reports.summary import (
    Accuracy,
    DemoSummary,
    Difference,
    Localisation,
    PolicySummary,
    StepRewardHistogram,
    TrainingSummary,
    read_summary,
    summary_to_json,
)

FULL = DemoSummary(
    seed=3,
    policies={
        "mid": PolicySummary(
            num_problems=2,
            num_responses=4,
            distinct_mean=1.5,
            results=(Accuracy(method="pass", n=1, accuracy=0.5, low=0.25, high=0.75),),
            differences=(Difference(n=4, first="a", second="b", difference=-0.25),),
            localisation=Localisation(
                auc=0.9,
                num_right_steps=7,
                histogram=StepRewardHistogram(edges=(-1.0, 0.0, 1.0), right=(1, 6), first_wrong=(2, 0)),
            ),
        )
    },
    settings={"train": {"beta": 0.5, "stop": None}, "note": ["x", True]},
    training=TrainingSummary(num_problems=10),
    examples=(
        Example(prompt="1+1=", steps=(ExampleStep(text="2\n", reward=-0.5, value=None),), first_wrong_step=0),
    ),
    commands=("stepcredit demo",),
    versions={"python": "3.11"},
    seconds={"training": 1.5},
    files={"prm/": "the model"},
)


def written(path: Path, content: Any) -> Path:
    target = path / "summary.json"
    target.write_text(json.dumps(content), encoding="utf-8")
    return target


def test_a_summary_survives_the_way_to_the_file_and_back(tmp_path: Path) -> None:
    assert read_summary(written(tmp_path, summary_to_json(FULL))) == FULL


def test_what_may_be_left_out_may_be_null_and_other_keys_are_ignored(tmp_path: Path) -> None:
    content = {"seed": 0, "policies": {"mid": {"results": None, "more": 1}}, "training": None, "later": {}}
    assert read_summary(written(tmp_path, content)) == DemoSummary(seed=0, policies={"mid": PolicySummary()})


def test_whole_numbers_are_fractions_too(tmp_path: Path) -> None:
    content = {"seed": 0, "policies": {}, "seconds": {"training": 3}}
    assert read_summary(written(tmp_path, content)).seconds == {"training": 3.0}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([], "should be an object, is list"),
        ({"policies": {}}, "lacks 'seed'"),
        ({"seed": "0", "policies": {}}, "seed: should be int, is '0'"),
        ({"seed": True, "policies": {}}, "seed: should be int, is True"),
        ({"seed": 0, "policies": []}, "policies: should be an object, is list"),
        ({"seed": 0, "policies": {"mid": {"results": {}}}}, "policies.mid: results: should be a list"),
        (
            {"seed": 0, "policies": {"mid": {"results": [{"method": "pass", "n": 1}]}}},
            r"policies.mid: results\[0\]: lacks 'accuracy'",
        ),
        (
            {"seed": 0, "policies": {}, "examples": [{"prompt": "p", "steps": [{"text": 1, "reward": 0}]}]},
            r"examples\[0\]: steps\[0\]: text: should be str, is 1",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, content: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_summary(written(tmp_path, content))


def test_a_file_that_is_not_there_or_not_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"summary\.json: cannot be read"):
        read_summary(tmp_path / "summary.json")
    (tmp_path / "summary.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match=r"summary\.json: is not JSON"):
        read_summary(tmp_path / "summary.json")

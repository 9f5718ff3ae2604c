from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stepcredit_study import reproduce
from stepcredit_study.word_problems.plan import RATES, plan_study
from stepcredit_study.word_problems.scale import FULL, GSM8K, TINY
from stepcredit_study.word_problems.sources import Gsm8k, Templates


def test_a_tiny_plan_by_hand() -> None:
    plan = plan_study(Templates, TINY)
    known = {stage.stage: stage for stage in plan.stages}
    assert known["fine-tuning, 40 steps"].trained == 40 * 10 * 133
    assert known["training responses, 128"].written == 128 * 56
    ce = known["implicit-ce, 1 training"]
    assert ce.trained == 128 * 132
    assert ce.read == (128 + 48) * 132
    middle = known["256 test responses of the middle policy, scored"]
    assert (middle.written, middle.read) == (256 * 56, 3 * 256 * 132)
    assert known["1 variant of 1 method"].trained == 0.25 * ce.trained


def test_hours_are_tokens_over_the_rates_and_the_sum_is_that_of_the_stages() -> None:
    plan = plan_study(Gsm8k, GSM8K)
    rows = plan.to_json()["stages"]
    for row in rows:
        assert row["hours"] == pytest.approx(sum(row[kind] / rate for kind, rate in RATES.items()) / 3600)
    last = plan.to_text().splitlines()[-2]
    assert last.split()[0] == "total"
    assert float(last.split()[-1]) == pytest.approx(sum(row["hours"] for row in rows), abs=0.06)


def test_monte_carlo_labels_are_the_dearest_to_write() -> None:
    stages = plan_study(Templates, replace(FULL, variants=())).stages
    (shepherd,) = (stage for stage in stages if stage.stage.startswith("math-shepherd"))
    (collection,) = (stage for stage in stages if stage.stage.startswith("training responses"))
    assert shepherd.written > 4 * collection.written


@pytest.mark.parametrize("name", ["word-problems", "gsm8k"])
def test_a_dry_run_needs_neither_model_nor_data(name: str) -> None:
    result = reproduce.run(reproduce.Options(names=(name,), dry_run=True))
    assert json.loads(json.dumps(result.to_json()))["study"] == name

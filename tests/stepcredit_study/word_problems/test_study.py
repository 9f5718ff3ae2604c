from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.checkpoints.loading import pick_device
from stepcredit.data import read_rollouts
from stepcredit.errors import UserError
from stepcredit.logprobs.float32_products import needs_float32
from stepcredit.pipelines.driver import Store
from stepcredit_study.word_problems.choices import choose
from stepcredit_study.word_problems.command import reproduce, source_of
from stepcredit_study.word_problems.scale import FULL, TINY, VARIANTS, WordScale, read_word_scale
from stepcredit_study.word_problems.sources import Templates
from stepcredit_study.word_problems.study import Study, run_study
from stepcredit_study.word_problems.world import WordWorld


@pytest.mark.slow
@pytest.mark.usefixtures("quick_grader")
def test_the_whole_study_runs_and_a_second_time_makes_nothing_anew(
    small_model: Path, small_scale: WordScale, made_up_responses: list[Path], tmp_path: Path
) -> None:
    published = tmp_path / "published"
    templates = source_of(None)
    results = reproduce(
        templates, str(small_model), tmp_path, small_scale, minutes=None, publish_to=published
    ).results
    lengths = results["policies"]
    assert (lengths["weak"], lengths["middle"], lengths["strong"]) == (1, 1, 2)
    assert set(results["outcomes"]) == {
        f"{test_set}/{policy}" for test_set in ("known", "new") for policy in ("middle", "weak", "strong")
    }
    known = results["outcomes"]["known/middle"]
    assert (known["problems"], known["responses"]) == (4, 24)
    assert known["wrong responses with a slip"] > 0.5
    assert set(known["methods"]) == {"reference", "implicit-ce", "outcome-head", "shortness"}
    prm = known["methods"]["implicit-ce"]
    assert 0.0 <= prm["auc"]["length regressed out"][0] <= 1.0
    assert set(prm["best-of-n"]) == {"2", "4"}
    assert set(prm["variants"]) == set(VARIANTS)
    usual = prm["variants"]["scored without the reference"]["minus usual"]
    assert usual is None or usual[1] <= usual[0] <= usual[2]
    assert set(results["operations of a few"]) == {"implicit-ce"}
    chosen = results["chosen"]["implicit-ce"]
    assert chosen["aggregate"] in {"sum", "mean", "min", "last"}
    assert results["operations"]["implicit-ce"]["training"] > 0
    assert (
        json.loads((tmp_path / "word-problems" / "results.json").read_text())["outcomes"]
        == results["outcomes"]
    )

    folder = published / "word-problems"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "fine-tuning.jsonl",
        "implicit-ce-known.html",
        "implicit-ce-new.html",
        "implicit-ce-training.jsonl",
        "outcome-head-known.html",
        "outcome-head-new.html",
        "outcome-head-training.jsonl",
        "results.json",
    ]
    page = (folder / "README.md").read_text()
    assert "## New: strong policy" in page
    assert f"{known['problems']} problems of {known['templates']} templates, " in page
    assert "test_problems 4 (8), " in page
    assert "Not run" not in page
    assert "| P2 | A vote weighted by CE or DPO beats the plain vote. | **not measured** |" in page

    asked = len(made_up_responses)
    again = run_study(templates, str(small_model), tmp_path / "word-problems", small_scale)
    assert again.results()["outcomes"] == results["outcomes"]
    assert len(made_up_responses) == asked


@pytest.mark.slow
@pytest.mark.parametrize("method", ["implicit-dpo", "math-shepherd", "autopsv"])
def test_each_method_gets_the_labels_that_it_needs(
    method: str, small_model: Path, small_scale: WordScale, made_up_responses: list[Path], tmp_path: Path
) -> None:
    scale = replace(small_scale, more_rates=(3e-3,))
    world = WordWorld(Templates(), scale, Store(tmp_path), {"middle": small_model})
    chosen = choose(world, method)
    labels = world.labels(method)
    assert (labels is None) == method.startswith("implicit")
    assert len(chosen.tried) == (1 if method.startswith("implicit") else 2)
    if labels is not None:
        assert all(rollout.step_labels for rollout in read_rollouts(labels))


def test_without_time_nothing_begins_and_nothing_is_claimed(
    small_model: Path, small_scale: WordScale, made_up_responses: list[Path], tmp_path: Path
) -> None:
    results = run_study(Templates(), str(small_model), tmp_path, small_scale, minutes=0.0).results()
    assert "outcomes" not in results
    assert made_up_responses == []


def test_the_middle_policy_comes_first_and_the_dear_ones_last(
    small_model: Path, small_scale: WordScale, tmp_path: Path
) -> None:
    study = Study(source=Templates(), model=small_model, out=tmp_path, scale=small_scale, go_on=lambda: True)
    stages = study._stages()
    assert next(stages) == study._find_middle


def test_sizes_are_those_that_were_decided_and_can_be_made_smaller() -> None:
    assert (FULL.test_problems, FULL.other_test_problems, FULL.test_responses) == (150, 100, 64)
    assert (FULL.train_problems, FULL.train_responses, FULL.seeds, FULL.completions) == (1000, 8, 3, 4)
    assert FULL.num_seeds("implicit-dpo") == 3
    assert FULL.num_seeds("autopsv") == 1
    tiny = read_word_scale("tiny", {})
    assert replace(tiny, training=TINY.training) == TINY
    fast = "float32" if needs_float32("bfloat16", pick_device("auto")) else "bfloat16"
    assert tiny.config("implicit-ce").precision == fast
    smaller = read_word_scale("full", {"test_responses": 16, "train_problems": 50})
    assert (smaller.ns, smaller.train_problems) == ((4, 16), 50)
    with pytest.raises(UserError, match=r"--scale: there is no scale 'huge'. Use full, tiny, gsm8k"):
        read_word_scale("huge", {})
    with pytest.raises(UserError, match=r"--size: responses=3 is not a size. Use block, "):
        read_word_scale("full", {"responses": 3})


@pytest.mark.parametrize("method", list(FULL.methods))
def test_every_method_has_settings_that_training_takes(method: str) -> None:
    config = FULL.config(method, learning_rate=FULL.rates[0])
    assert (config.lora_rank, config.step_rule, config.learning_rate) == (32, "newline", 1e-4)

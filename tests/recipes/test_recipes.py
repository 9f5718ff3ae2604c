"""Every shipped recipe is read by the command that it is for, and says what the paper says."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.cli.parser import build
from stepcredit.pipelines.train import DryRun, Options, run
from stepcredit.recipes import recipe_names, recipe_path


def options(name: str, tmp_path: Path) -> Options:
    given = {"graded": tmp_path / "none.jsonl", "out": tmp_path / "prm", "dry_run": True}
    if name == "lab":
        given |= {"model": "policies/mid", "model_parameters": 3.6e5, "model_layers": 3, "model_width": 96}
        given |= {"examples": 8000, "mean_tokens": 50.0}
    built: Options = build(Options, given, Path(name))
    return built


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_by_its_name_plans_a_run_without_model_or_data(name: str, tmp_path: Path) -> None:
    result = run(options(name, tmp_path))
    assert isinstance(result, DryRun)
    plan = result.plan
    assert result.to_text() == plan.to_text()
    assert plan.steps > 0
    assert plan.fits in (None, True)
    assert list(tmp_path.iterdir()) == []


def test_there_is_one_for_the_lab_a_small_model_and_the_paper() -> None:
    assert recipe_names() == ("lab", "paper", "small")
    assert recipe_path("none") is None


def test_the_papers_recipe_has_its_hyper_parameters(tmp_path: Path) -> None:
    given = options("paper", tmp_path)
    config = given.config
    assert given.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert given.reference is None
    assert (config.beta, config.learning_rate, config.batch_size, config.epochs) == (0.05, 5e-7, 64, 1)
    assert (config.max_tokens, config.precision, config.pairs_per_prompt) == (8192, "bfloat16", 16)
    assert (config.schedule, config.final_learning_rate, config.warmup) == ("cosine", 0.1, 0.03)
    assert (config.adam_beta1, config.adam_beta2, config.weight_decay) == (0.9, 0.95, 0)
    assert (config.max_grad_norm, config.lora_rank) == (1.0, 0)
    assert given.plan.examples == 33_000 * 8

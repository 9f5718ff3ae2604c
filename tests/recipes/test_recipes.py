"""Every shipped recipe is read by the command that it is for, and says what the paper says."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.checkpoints import load_model, load_tokenizer
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.encoding import ChatEncoding
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import draw_problems
from stepcredit.lab.tutor import WEAK
from stepcredit.pipelines.train import DryRun, Options, run
from stepcredit.recipes import recipe_names, recipe_path
from stepcredit.settings import build
from stepcredit.steps import StepRule
from stepcredit.types import Rollout


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


def test_there_is_one_for_the_lab_a_small_model_code_and_the_paper() -> None:
    assert recipe_names() == ("code", "lab", "paper", "small")
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


def test_the_papers_plan_is_what_a_hand_works_out_and_the_guide_shows(tmp_path: Path) -> None:
    """8.03e9 parameters, 264,000 responses of 500 tokens, 8 H100 at 40%; activations are recomputed."""
    result = run(options("paper", tmp_path))
    assert isinstance(result, DryRun)
    plan = result.plan
    tokens = 264_000 * 500
    assert (plan.examples, plan.steps, plan.tokens) == (264_000, 264_000 // 64, tokens)
    # Forward 2, backward 4, forward again 2; the reference forward 2.
    assert plan.training_flops == pytest.approx(8 * 8.03e9 * tokens)
    assert plan.reference_flops == pytest.approx(2 * 8.03e9 * tokens)
    assert plan.hours == pytest.approx(10 * 8.03e9 * tokens / (8 * 989e12 * 0.4) / 3600)
    # Sharded: 16 bytes / 8; one pass of 16,384 tokens of width 4096 keeps 2 bytes a layer and all of one
    # layer; 32 MiB of logits. Before: float32 weights, whole.
    training = 16 * 8.03e9 / 8 + (2 * 32 + 34) * 16_384 * 4096 + 32 * 2**20
    assert training / 2**30 == pytest.approx(21.1, abs=0.05)
    assert plan.device_memory_gib == pytest.approx(max(training, 4 * 8.03e9) / 2**30)
    assert result.to_text() in (Path(__file__).parents[2] / "docs" / "training.md").read_text(
        encoding="utf-8"
    )


def test_the_small_recipes_plan_on_one_gpu(tmp_path: Path) -> None:
    """1.345e8 parameters, 2000 responses of 280 tokens, one pass, nothing recomputed."""
    plan = run(options("small", tmp_path)).plan  # type: ignore[attr-defined]
    tokens = 2000 * 280
    assert (plan.examples, plan.steps, plan.tokens) == (2000, 63, tokens)
    assert plan.training_flops == pytest.approx(6 * 1.345e8 * tokens)
    assert plan.reference_flops == pytest.approx(2 * 1.345e8 * tokens)
    assert plan.hours == pytest.approx(8 * 1.345e8 * tokens / (989e12 * 0.4) / 3600)
    pass_tokens = plan.assumptions["tokens_per_forward"]
    expected = 16 * 1.345e8 + 34 * pass_tokens * 576 * 30 + 32 * 2**20
    assert plan.device_memory_gib == pytest.approx(expected / 2**30)


def test_the_labs_plan_counts_a_demos_own_files(tmp_path: Path) -> None:
    """The lab's recipe with its model and data at hand: the counts are theirs."""
    model = policy_path("mid")
    problems = draw_problems("train", seed=0, count=4)
    rollouts = [
        Rollout(id=str(i), prompt_id=str(i), prompt=problem.text, response=text, correct=bool(i % 2))
        for i, (problem, text) in enumerate(zip(problems, WEAK.write(problems, seed=[0, 0]), strict=True))
    ]
    graded = tmp_path / "graded.jsonl"
    write_rows(graded, map(rollout_to_json, rollouts))
    built = build(
        Options,
        {"graded": graded, "out": tmp_path / "prm", "dry_run": True, "model": str(model)},
        Path("lab"),
    )
    plan = run(built).plan  # type: ignore[attr-defined]
    encoding = ChatEncoding(load_tokenizer(model), StepRule("newline"))
    tokens = sum(len(encoding.encode(rollout).encoded.token_ids) for rollout in rollouts)
    parameters = load_model(model, device="cpu").num_parameters()
    assert (plan.examples, plan.tokens, plan.steps) == (4, 2 * tokens, 2)
    assert plan.training_flops == pytest.approx(6 * parameters * 2 * tokens)
    assert plan.reference_flops == pytest.approx(2 * parameters * tokens)

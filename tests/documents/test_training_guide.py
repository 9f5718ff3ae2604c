"""What docs/training.md shows runs: other libraries load a trained model and agree with its rewards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stepcredit.checkpoints import load_tokenizer
from stepcredit.cli import main
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import draw_problems
from stepcredit.lab.tutor import WEAK
from stepcredit.scorers import load_scorer
from stepcredit.types import Rollout

GUIDE = Path(__file__).parents[2] / "docs" / "training.md"


def make_rollouts() -> list[Rollout]:
    problems = draw_problems("train", seed=0, count=8)
    return [
        Rollout(
            id=f"{number}-{index}",
            prompt_id=str(number),
            prompt=problem.text,
            response=response,
            correct=response.rpartition("#")[2].strip() == problem.answer,
            finish_reason="stop",
        )
        for index in range(2)
        for number, (problem, response) in enumerate(
            zip(problems, WEAK.write(problems, seed=[0, index]), strict=True)
        )
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The names that the guide uses: MODEL, prm, prm-adapter."""
    directory = tmp_path_factory.mktemp("guide")
    write_rows(directory / "graded.jsonl", map(rollout_to_json, make_rollouts()))
    (directory / "MODEL").symlink_to(policy_path("mid"))
    words = ["train", str(directory / "graded.jsonl"), "--model", str(directory / "MODEL"), "--device", "cpu"]
    words += ["--learning-rate", "1e-3", "--warmup", "0", "--batch-size", "8", "--steps", "newline"]
    assert main([*words, "--out", str(directory / "prm")]) == 0
    assert main([*words, "--out", str(directory / "prm-adapter"), "--lora-rank", "2"]) == 0
    return directory


def blocks(language: str = "python") -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run_block(word: str) -> dict[str, Any]:
    """Run the guide's block that has this word; gives its variables."""
    (block,) = [block for block in blocks() if word in block]
    variables: dict[str, Any] = {}
    exec(compile(block, str(GUIDE), "exec"), variables)
    return variables


def log_probs(model: Any, tokenizer: Any, rollout: Rollout) -> float:
    """Sum over the response and its end of turn, from whole logits."""
    messages = [{"role": "user", "content": rollout.prompt}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    text = prompt + rollout.response
    ids = torch.tensor([[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        picked = model(ids).logits[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None])
    return float(picked[start - 1 :].sum())


def test_plain_transformers_gives_the_prms_rewards(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    loaded = run_block("AutoTokenizer")
    model, tokenizer = loaded["model"], loaded["tokenizer"]
    reference = type(model).from_pretrained("MODEL", dtype="float32")
    rollouts = make_rollouts()[:4]
    for rollout, score in zip(rollouts, load_scorer("prm").score_all(rollouts), strict=True):
        ratio = log_probs(model, tokenizer, rollout) - log_probs(reference, tokenizer, rollout)
        assert score.steps[-1].value == pytest.approx(0.05 * ratio, abs=1e-4)


def test_peft_gives_the_adapters_rewards(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    model = run_block("AutoPeftModelForCausalLM")["model"].float().eval()
    scorer = load_scorer("prm-adapter")
    rollout = make_rollouts()[0]
    tokenizer = load_tokenizer("prm-adapter")
    with_adapter = log_probs(model, tokenizer, rollout)
    with model.disable_adapter():
        ratio = with_adapter - log_probs(model, tokenizer, rollout)
    (score,) = scorer.score_all([rollout])
    assert abs(ratio) > 1e-3
    assert score.steps[-1].value == pytest.approx(0.05 * ratio, abs=1e-4)


@pytest.mark.slow
def test_trls_rewards_are_the_prms(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(workplace)
    scorer = load_scorer("prm")
    right, wrong = make_rollouts()[0], make_rollouts()[1]
    messages = [{"role": "user", "content": right.prompt}]
    tokenizer: Any = load_tokenizer("prm")
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pair = {"prompt": prompt, "chosen": right.response, "rejected": wrong.response}
    Path("pairs.jsonl").write_text(json.dumps(pair) + "\n")
    trainer = run_block("DPOTrainer")["trainer"]
    (row,) = [row for row in trainer.state.log_history if "rewards/chosen" in row]
    (chosen,) = scorer.score_all([right])
    assert row["rewards/chosen"] == pytest.approx(chosen.steps[-1].value, abs=1e-3)


def test_vllm_finds_what_it_reads(workplace: Path) -> None:
    """vLLM takes the class from config.json, weights by transformers' names, and LoRA by peft's names."""
    whole, adapter = workplace / "prm", workplace / "prm-adapter"
    config = json.loads((whole / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["torch_dtype" if "torch_dtype" in config else "dtype"] == "float32"
    names = load_file(whole / "model.safetensors").keys()
    assert all(name.startswith(("model.", "lm_head.")) for name in names)
    for directory in (whole, adapter):
        assert (directory / "tokenizer.json").is_file()
        assert (directory / "chat_template.jinja").is_file()
        assert not list(directory.glob("*.bin"))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["bias"]) == ("LORA", 2, "none")
    assert not settings["modules_to_save"]
    assert not settings["use_dora"]
    assert Path(settings["base_model_name_or_path"]).samefile(workplace / "MODEL")
    for name, weight in load_file(adapter / "adapter_model.safetensors").items():
        matched = re.fullmatch(r"base_model\.model\.model\.layers\.\d+\.[a-z_.]+\.(lora_[AB])\.weight", name)
        assert matched is not None, name
        assert weight.shape[matched[1] == "lora_B"] == 2

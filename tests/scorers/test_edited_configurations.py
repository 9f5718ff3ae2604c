"""A reference whose configuration was edited is another model, though its weights are what they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from stepcredit import ImplicitPRM
from stepcredit.checkpoints import PRMCard, Reference, load_tokenizer, save_prm, weights_hash
from stepcredit.cli import main
from stepcredit.logprobs import CachedTokenLogProbs
from stepcredit.scorers import load_scorer
from stepcredit.scorers.log_probability import LogProbabilityScorer

PROMPT = "Tom had 3 boxes."
RESPONSE = "He had 3.\nThen he got 9 more.\n12"
ROTATED = {"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}}
Pair = tuple[Path, Path]


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def reward(policy: Path, reference: Path | None, **options: Any) -> float:
    prm = ImplicitPRM.from_pretrained(policy, reference, steps="newline", **options)
    return prm.score(PROMPT, RESPONSE).reward


def assert_the_cache_follows(policy: Path, reference: Path, file: Path, cache: Path, **fields: Any) -> None:
    before = reward(policy, reference, beta=1.0, cache=cache)
    edit(file, **fields)
    computed = reward(policy, reference, beta=1.0, cache=cache)
    assert abs(computed - before) > 1e-3
    assert computed == pytest.approx(reward(policy, reference, beta=1.0), abs=1e-5)


def test_the_cache_has_nothing_for_another_configuration(saved_pair: Pair, tmp_path: Path) -> None:
    policy, reference = saved_pair
    assert_the_cache_follows(policy, reference, reference / "config.json", tmp_path / "cache", **ROTATED)


@pytest.fixture
def adapter(saved_pair: Pair, tmp_path: Path, make_model: Callable[..., Any]) -> Path:
    """An adapter on the reference."""
    lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(make_model(1), lora).save_pretrained(str(tmp_path / "adapter"))
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(saved_pair[1]))
    return tmp_path / "adapter"


def test_the_cache_has_nothing_for_another_scale_of_an_adapter(
    saved_pair: Pair, adapter: Path, tmp_path: Path
) -> None:
    file = adapter / "adapter_config.json"
    assert_the_cache_follows(saved_pair[0], adapter, file, tmp_path / "cache", lora_alpha=16)


def test_the_cache_has_nothing_for_another_configuration_of_an_adapters_base(
    saved_pair: Pair, adapter: Path, tmp_path: Path
) -> None:
    policy, base = saved_pair
    assert_the_cache_follows(policy, adapter, base / "config.json", tmp_path / "cache", **ROTATED)


def test_the_references_own_scores_take_what_an_adapter_on_it_computed(
    saved_pair: Pair, adapter: Path, tmp_path: Path
) -> None:
    base, cache = saved_pair[1], tmp_path / "cache"
    load_scorer(adapter, beta=1.0, cache=cache).score(PROMPT, RESPONSE)
    scorer = load_scorer(base, family="log-probability", cache=cache)
    assert isinstance(scorer, LogProbabilityScorer)
    assert isinstance(scorer.model, CachedTokenLogProbs)
    found = scorer.score(PROMPT, RESPONSE)
    assert (scorer.model.counts.hits, scorer.model.counts.misses) == (1, 0)
    assert found == load_scorer(base, family="log-probability").score(PROMPT, RESPONSE)


@pytest.fixture
def prm(saved_pair: Pair, tmp_path: Path, make_model: Callable[..., Any]) -> Path:
    """A PRM whose card names the pair's reference."""
    reference = Reference.local(saved_pair[1], tmp_path / "prm", weights_hash(saved_pair[1]))
    save_prm(
        make_model(0), load_tokenizer(saved_pair[1]), PRMCard(beta=1.0, reference=reference), tmp_path / "prm"
    )
    return tmp_path / "prm"


@pytest.mark.parametrize("edited", ["prm", "reference"])
def test_an_edited_configuration_is_reported(
    edited: str, prm: Path, saved_pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    reward(prm, None)
    assert capsys.readouterr().err == ""
    edit(prm.parent / edited / "config.json", transformers_version="5.0.0", _name_or_path="elsewhere")
    reward(prm, None)
    assert capsys.readouterr().err == ""
    edit(prm.parent / edited / "config.json", **ROTATED)
    reward(prm, None)
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert f"{edited}: its configuration" in said
    # Cards of earlier versions say nothing of it.
    card = json.loads((prm / "prm.json").read_text())
    del card["configuration_hash"], card["reference"]["configuration_hash"]
    (prm / "prm.json").write_text(json.dumps(card))
    reward(prm, None)
    assert capsys.readouterr().err == ""


def test_the_base_of_an_adapter_may_move_but_not_be_edited(
    saved_pair: Pair, make_model: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base, prm = saved_pair[1], tmp_path / "prm"
    model: Any = get_peft_model(make_model(1), LoraConfig(r=2, target_modules="all-linear"))
    model.peft_config["default"].base_model_name_or_path = str(base)
    reference = Reference.local(base, prm, weights_hash(base), adapter_off=True)
    save_prm(model, load_tokenizer(base), PRMCard(beta=1.0, reference=reference), prm)
    moved = Path(shutil.move(base, tmp_path / "moved"))
    edit(prm / "adapter_config.json", base_model_name_or_path=str(moved))
    reward(prm, None)
    assert capsys.readouterr().err == ""
    edit(moved / "config.json", **ROTATED)
    reward(prm, None)
    assert "prm: its configuration (config.json or adapter_config.json) was edited" in capsys.readouterr().err


def test_scores_by_a_recorded_reference_that_was_edited_are_not_there_already(
    prm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "r", "prompt_id": "p", "prompt": PROMPT, "response": RESPONSE, "finish_reason": "stop"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    words = f"score {tmp_path}/rows.jsonl --prm {prm} --steps newline --out {tmp_path}/scores.jsonl".split()
    assert main(words) == 0
    edit(tmp_path / "reference" / "config.json", transformers_version="5.0.0")
    assert main(words) == 0
    assert "already" in capsys.readouterr().out
    edit(tmp_path / "reference" / "config.json", **ROTATED)
    assert main(words) == 2
    assert "was made with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("edited", ["policy", "reference"])
@pytest.mark.parametrize("command", ["score", "train"])
def test_what_an_edited_model_would_give_is_not_there_already(
    command: str, edited: str, saved_pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded = tmp_path / "graded.jsonl"
    for correct in (True, False):
        row = {"id": f"r{correct}", "prompt_id": "p", "prompt": PROMPT, "response": RESPONSE}
        with graded.open("a") as file:
            file.write(json.dumps(row | {"finish_reason": "stop", "correct": correct}) + "\n")
    model = {"score": ["--prm", "policy", "--beta", "1"], "train": ["--model", "policy"]}[command]
    words = [
        command, str(graded), model[0], str(saved_pair[0]), *model[2:], "--reference", str(saved_pair[1]),
        "--steps", "newline", "--out", str(tmp_path / {"score": "scores.jsonl", "train": "prm"}[command]),
    ]  # fmt: skip
    assert main(words) == 0
    assert main(words) == 0
    assert "already" in capsys.readouterr().out
    edit(tmp_path / edited / "config.json", transformers_version="5.0.0")
    assert main(words) == 0
    edit(tmp_path / edited / "config.json", **ROTATED)
    assert main(words) == 2
    assert "was made with other settings" in capsys.readouterr().err

"""Every way to start: rewards are relative to the initial weights, and a saved model scores as it did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stepcredit.checkpoints import LoadOptions, PRMCard, content_hash, load_model, load_tokenizer
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.errors import CheckpointError, UserError
from stepcredit.pipelines.train import Options, run
from stepcredit.scorers import load_scorer
from stepcredit.training.config import TrainConfig
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Rollout

SETTINGS = TrainConfig(
    beta=0.5, learning_rate=3e-3, batch_size=8, save_every=100, log_every=1, step_rule="newline", warmup=0.0
)
HEAD = replace(SETTINGS, family="value-head", objective="token-ce")


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``plain``, and ``adapter``: the same after some other training, as an adapter of rank 2."""
    from peft import LoraConfig, get_peft_model

    directory = tmp_path_factory.mktemp("starts")
    shutil.copytree(tiny_model, directory / "plain")
    torch.manual_seed(1)
    lora = LoraConfig(
        r=2, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted: Any = get_peft_model(load_model(directory / "plain", device="cpu"), lora)
    adapted.save_pretrained(directory / "adapter")
    load_tokenizer(directory / "plain").save_pretrained(directory / "adapter")
    return directory


@pytest.fixture
def graded(tmp_path: Path, rollouts: list[Rollout]) -> Path:
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rollouts))
    return tmp_path / "graded.jsonl"


def train(graded: Path, model: Path, out: Path, config: TrainConfig, **fields: Any) -> list[dict[str, Any]]:
    """The training log; the training data stand in for held-out data."""
    load = LoadOptions(device="cpu")
    run(Options(graded=graded, model=str(model), out=out, dev=graded, config=config, load=load, **fields))
    return [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]


def assert_starts_at_zero(log: Sequence[dict[str, Any]]) -> None:
    """Of a first step nothing is learnt before its loss is taken."""
    first = log[0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert (first["reward_right"], first["reward_wrong"]) == pytest.approx((0, 0), abs=1e-6)


def assert_scores_as_in_training(prm: Path, rollouts: list[Rollout]) -> None:
    """Loaded anew, its rewards are those of the held-out metrics that ``prm.json`` has."""
    card = PRMCard.read(prm)
    results = card.results
    rewards = np.array([score.reward for score in load_scorer(prm).score_all(rollouts)])
    if card.family != "implicit":
        rewards = np.log(rewards) - np.log1p(-rewards)  # a probability, where training had its logit
    right = np.array([rollout.correct for rollout in rollouts])
    assert rewards[right].mean() == pytest.approx(results["reward_right"], abs=1e-5)
    assert rewards[~right].mean() == pytest.approx(results["reward_wrong"], abs=1e-5)
    assert rewards.std() > 1e-4


class TestImplicit:
    @pytest.mark.parametrize("live", [False, True], ids=["stored", "live"])
    @pytest.mark.parametrize("rank", [0, 2], ids=["full", "lora"])
    @pytest.mark.parametrize("start", ["plain", "adapter"])
    def test_the_reference_is_the_initial_weights(
        self,
        start: str,
        rank: int,
        live: bool,
        models: Path,
        graded: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
    ) -> None:
        config = replace(SETTINGS, lora_rank=rank, live_reference=live)
        assert_starts_at_zero(train(graded, models / start, tmp_path / "prm", config))
        reference = PRMCard.read(tmp_path / "prm").reference
        assert reference is not None
        # The one way to be its own reference: a base that got its first adapter.
        assert reference.adapter_off == (start == "plain" and rank > 0)
        assert reference.weights_hash == content_hash(models / start)
        assert_scores_as_in_training(tmp_path / "prm", rollouts)

    def test_in_bfloat16_both_sides_of_an_adapter_round_alike(
        self, models: Path, graded: Path, tmp_path: Path
    ) -> None:
        config = replace(SETTINGS, lora_rank=2, precision="bfloat16")
        first = train(graded, models / "adapter", tmp_path / "prm", config)[0]
        assert first["loss"] == pytest.approx(0.6931, abs=1e-3)

    def test_a_stopped_run_goes_on_against_the_same_reference(
        self, models: Path, graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = replace(SETTINGS, lora_rank=2, save_every=1)
        whole = train(graded, models / "adapter", tmp_path / "whole", config)
        original = PRMTrainer.training_step

        def stop(self: PRMTrainer, *arguments: Any, **options: Any) -> Any:
            if self.state.global_step == 2:
                raise KeyboardInterrupt
            return original(self, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(PRMTrainer, "training_step", stop)
            with pytest.raises(KeyboardInterrupt):
                train(graded, models / "adapter", tmp_path / "prm", config)
        assert train(graded, models / "adapter", tmp_path / "prm", config) == whole

    @pytest.mark.parametrize("rank", [0, 2], ids=["full", "lora"])
    def test_a_second_stage_keeps_the_reference_of_the_first(
        self, rank: int, models: Path, graded: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        train(graded, models / "adapter", tmp_path / "first", replace(SETTINGS, lora_rank=2))
        log = train(graded, tmp_path / "first", tmp_path / "second", replace(SETTINGS, lora_rank=rank))
        scores = {score.id: score.reward for score in load_scorer(tmp_path / "first").score_all(rollouts)}
        rows = [row for row in log if "heldout_reward_right" in row]
        assert abs(log[0]["reward_right"]) + abs(log[0]["reward_wrong"]) > 1e-3
        assert max(map(abs, scores.values())) > 1e-3
        assert rows[0]["step"] == 1
        first, second = (PRMCard.read(tmp_path / name).reference for name in ("first", "second"))
        assert first is not None
        assert second is not None
        assert (second.weights_hash, second.adapter_off) == (first.weights_hash, False)
        assert_scores_as_in_training(tmp_path / "second", rollouts)

    def test_another_reference_may_be_named(self, models: Path, graded: Path, tmp_path: Path) -> None:
        config = replace(SETTINGS, lora_rank=2)
        log = train(graded, models / "adapter", tmp_path / "prm", config, reference=str(models / "plain"))
        assert abs(log[0]["loss"] - 0.693147) > 1e-4
        reference = PRMCard.read(tmp_path / "prm").reference
        assert reference is not None
        assert reference.weights_hash == content_hash(models / "plain")

    def test_a_reference_whose_base_was_changed_is_refused(
        self, models: Path, graded: Path, tmp_path: Path
    ) -> None:
        here = shutil.copytree(models, tmp_path / "models")
        adapter = json.loads((here / "adapter" / "adapter_config.json").read_text())
        adapter["base_model_name_or_path"] = str(here / "plain")
        (here / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
        train(graded, here / "adapter", tmp_path / "prm", replace(SETTINGS, lora_rank=2))
        load_scorer(tmp_path / "prm")
        change_weights(here / "plain" / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"is not the reference .*its weights differ"):
            load_scorer(tmp_path / "prm")
        with pytest.raises(CheckpointError, match=r"is not the reference .*its weights differ"):
            train(graded, tmp_path / "prm", tmp_path / "next", replace(SETTINGS, lora_rank=2))

    def test_the_cache_has_nothing_for_another_configuration(
        self, models: Path, graded: Path, tmp_path: Path
    ) -> None:
        model = shutil.copytree(models / "plain", tmp_path / "plain")
        train(graded, model, tmp_path / "first", SETTINGS, cache=tmp_path / "cache")
        configuration = json.loads((model / "config.json").read_text())
        configuration["rope_parameters"]["rope_theta"] = 3.0
        (model / "config.json").write_text(json.dumps(configuration))
        assert_starts_at_zero(train(graded, model, tmp_path / "next", SETTINGS, cache=tmp_path / "cache"))

    def test_training_and_all_adapters_on_a_base_share_what_the_cache_has_of_it(
        self, models: Path, graded: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        for name, rate in (("first", 1e-3), ("second", 1e-2)):
            config = replace(SETTINGS, lora_rank=2, learning_rate=rate)
            train(graded, models / "plain", tmp_path / name, config, cache=tmp_path / "cache")
            scorer: Any = load_scorer(tmp_path / name, cache=tmp_path / "cache")
            list(scorer.score_all(rollouts))
            assert scorer.reference.counts.hits > 0
            assert scorer.reference.counts.misses == 0
            assert_scores_as_in_training(tmp_path / name, rollouts)

    def test_a_prm_that_was_changed_is_not_trained_further(
        self, models: Path, graded: Path, tmp_path: Path
    ) -> None:
        train(graded, models / "plain", tmp_path / "prm", SETTINGS)
        change_weights(tmp_path / "prm" / "model.safetensors")
        with pytest.raises(CheckpointError, match="the weights differ from what it was trained with"):
            train(graded, tmp_path / "prm", tmp_path / "next", SETTINGS)


class TestHeads:
    @pytest.mark.parametrize("rank", [0, 2], ids=["full", "lora"])
    @pytest.mark.parametrize("start", ["plain", "adapter"])
    def test_a_head_is_trained_on_the_initial_weights(
        self, start: str, rank: int, models: Path, graded: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        """Whole or as an adapter, the head's first loss is the same, so both read the same network."""
        log = train(graded, models / start, tmp_path / "head", replace(HEAD, lora_rank=rank))
        merged: Any = load_model(models / start, device="cpu")
        merged = merged if start == "plain" else merged.merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        load_tokenizer(models / start).save_pretrained(tmp_path / "merged")
        plain = train(graded, tmp_path / "merged", tmp_path / "plain", HEAD)
        assert log[0]["loss"] == pytest.approx(plain[0]["loss"], abs=1e-5)
        assert PRMCard.read(tmp_path / "head").reference is None
        assert_scores_as_in_training(tmp_path / "head", rollouts)

    @pytest.mark.parametrize("rank", [0, 2], ids=["full", "lora"])
    def test_a_head_saved_with_its_adapter_is_trained_further(
        self, rank: int, models: Path, graded: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        train(graded, models / "adapter", tmp_path / "first", replace(HEAD, lora_rank=2))
        log = train(graded, tmp_path / "first", tmp_path / "second", replace(HEAD, lora_rank=rank))
        assert log[0]["loss"] < train(graded, models / "adapter", tmp_path / "new", HEAD)[0]["loss"]
        assert_scores_as_in_training(tmp_path / "second", rollouts)

    def test_a_reference_has_no_meaning_for_them(self, models: Path, graded: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="--reference: only implicit"):
            train(graded, models / "plain", tmp_path / "prm", HEAD, reference=str(models / "plain"))


def change_weights(file: Path) -> None:
    weights = load_file(file)
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, file, metadata={"format": "pt"})

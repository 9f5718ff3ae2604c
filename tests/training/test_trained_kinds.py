"""Heads, label tokens and the second stage: the same trainer, and the scorer reads what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepcredit.checkpoints import LoadOptions, PRMCard, save_prm
from stepcredit.errors import UserError
from stepcredit.objectives import get_objective
from stepcredit.scorers import load_scorer
from stepcredit.scorers.heads import token_record
from stepcredit.scorers.step_models import StepModelScorer
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import encode_examples
from stepcredit.training.fitting import TrainedModel
from stepcredit.training.run import train_prm
from stepcredit.training.sources import Sources
from stepcredit.training.step_batches import make_forward_batch
from stepcredit.types import Rollout, StepLabel


def label_steps(rollout: Rollout) -> Rollout:
    """A made-up rule that a model can learn: a line is right where its digit is even."""
    labels = []
    end = 0
    for line in rollout.response.splitlines(keepends=True):
        end += len(line)
        digit = line.rstrip("\n")[-1]
        labels.append(StepLabel(end, float(digit in "02468")))
    return replace(rollout, step_labels=tuple(labels))


def train(model: Path, rollouts: Sequence[Rollout], work: Path, **settings: Any) -> TrainedModel:
    base = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 1.0, "log_every": 1, "step_rule": "newline"}
    config = TrainConfig(**{**base, **settings})
    return train_prm(
        rollouts, sources=Sources.find(model, None, config, LoadOptions()), config=config, work=work
    )


def losses(trained: TrainedModel) -> list[float]:
    return [row["loss"] for row in trained.log if "loss" in row]


@pytest.fixture(scope="module")
def labelled(rollouts: list[Rollout]) -> list[Rollout]:
    return [label_steps(rollout) for rollout in rollouts]


def test_a_value_head_learns_step_labels_and_its_scorer_reads_the_same_values(
    tiny_model: Path, labelled: list[Rollout], tmp_path: Path
) -> None:
    trained = train(
        tiny_model, labelled, tmp_path / "work", family="value-head", objective="step-ce", epochs=12.0
    )
    assert losses(trained)[-1] < losses(trained)[0] - 0.1
    out = tmp_path / "prm"
    out.mkdir()
    card = PRMCard(family="value-head", objective="step-ce", step_rule=trained.step_rule)
    save_prm(trained.model, trained.tokenizer, card, out)
    scores = list(load_scorer(out).score_all(labelled))
    assert all(
        len(score.steps) == len(row.step_labels or ()) for score, row in zip(scores, labelled, strict=True)
    )
    given = np.array([step.reward for score in scores for step in score.steps])
    wanted = np.array([label.label for row in labelled for label in row.step_labels or ()])
    bce = -np.mean(
        [np.mean(w * np.log(g) + (1 - w) * np.log(1 - g)) for g, w in zip(given, wanted, strict=True)]
    )
    assert bce < 0.69


@pytest.mark.parametrize("objective", ["ce", "token-ce", "dpo", "bco"])
def test_a_value_head_trains_on_outcomes(
    objective: str, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    trained = train(tiny_model, rollouts, tmp_path, family="value-head", objective=objective)
    assert len(losses(trained)) >= 2
    assert trained.model.config.num_labels == 1
    assert "kl_to_reference" not in trained.heldout


def test_a_token_head_learns_pairs_and_its_scorer_gives_the_rewards_that_were_trained(
    tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    """Q-RM: a pair's loss is of the responses' mean token values."""
    settings = {"family": "token-head", "objective": "pair-margin", "pair_scale": 10.0, "pair_margin": 1.0}
    trained = train(tiny_model, rollouts, tmp_path / "work", epochs=8.0, learning_rate=1e-2, **settings)
    assert losses(trained)[-1] < losses(trained)[0] - 0.1
    out = tmp_path / "prm"
    out.mkdir()
    card = PRMCard(family="token-head", objective="pair-margin", step_rule=trained.step_rule)
    save_prm(trained.model, trained.tokenizer, card, out)
    scorer = load_scorer(out, with_tokens=True)
    assert isinstance(scorer, StepModelScorer)
    scores = list(scorer.score_all(rollouts))
    for score in scores:
        assert score.reward == pytest.approx(np.mean(score.token_rewards or ()), abs=1e-5)
    examples = encode_examples(rollouts, scorer.encoding, objective=get_objective("dpo"))
    batch = make_forward_batch(examples, [example.encoded for example in examples], None)
    with torch.no_grad():
        rewards = token_record(trained.model.eval(), batch).rewards
    assert [score.reward for score in scores] == pytest.approx(rewards.tolist(), abs=1e-5)


@pytest.mark.parametrize("objective", ["token-ce", "step-ce"])
def test_a_token_head_has_no_values_of_prefixes(objective: str) -> None:
    with pytest.raises(UserError, match=rf"--objective: {objective} needs the value of a prefix"):
        TrainConfig(family="token-head", objective=objective)


@pytest.mark.parametrize(
    ("family", "objective"),
    [
        ("value-head", "ce"),
        ("value-head", "step-ce"),
        ("token-head", "pair-margin"),
        ("token-classifier", "step-ce"),
        ("math-shepherd", "step-ce"),
    ],
)
def test_packed_and_padded_losses_agree_step_by_step(
    family: str, objective: str, tiny_model: Path, labelled: list[Rollout], tmp_path: Path
) -> None:
    settings = {"family": family, "objective": objective, "group_prompts": True}
    padded = train(tiny_model, labelled, tmp_path / "a", layout="padded", **settings)
    packed = train(tiny_model, labelled, tmp_path / "b", layout="packed", **settings)
    assert losses(packed) == pytest.approx(losses(padded), rel=1e-5)


def test_the_head_has_no_dropout(tiny_model: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    trained = train(tiny_model, rollouts, tmp_path, family="value-head", objective="ce", epochs=0.3)
    assert all(module.p == 0 for module in trained.model.modules() if isinstance(module, torch.nn.Dropout))


def test_the_second_stage_puts_step_labels_on_the_cumulative_value(
    tiny_model: Path, labelled: list[Rollout], tmp_path: Path
) -> None:
    trained = train(tiny_model, labelled, tmp_path, objective="step-ce", beta=0.5, epochs=6.0)
    assert losses(trained)[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses(trained)[-1] < 0.68


def test_step_objectives_leave_out_what_has_no_labels(
    tiny_model: Path, labelled: list[Rollout], tmp_path: Path
) -> None:
    bare = replace(labelled[0], id="bare", step_labels=None)
    trained = train(tiny_model, [*labelled, bare], tmp_path, objective="step-ce", epochs=0.3)
    assert trained.counts["no_step_labels"] == 1


def test_objectives_that_need_log_ratios_are_refused_for_heads() -> None:
    with pytest.raises(UserError, match=r"--objective: kto trains implicit reward models only"):
        TrainConfig(family="value-head", objective="kto")


def make_tagged_model(directory: Path) -> Path:
    """A tiny model whose byte-level tokenizer has the tag and both labels as tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, "Ġ+", "Ġ-", "<pad>", "<eos>"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "+"), ("Ġ", "-")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_label_tokens_learn_step_labels_and_their_scorer_reads_them(
    labelled: list[Rollout], tmp_path: Path
) -> None:
    model = make_tagged_model(tmp_path / "model")
    trained = train(
        model, labelled, tmp_path / "work", family="math-shepherd", objective="step-ce", epochs=10.0
    )
    assert losses(trained)[-1] < losses(trained)[0] - 0.05
    out = tmp_path / "prm"
    out.mkdir()
    card = PRMCard(family="math-shepherd", objective="step-ce", step_rule=trained.step_rule)
    save_prm(trained.model, trained.tokenizer, card, out)
    scores = list(load_scorer(out).score_all(labelled))
    assert [len(score.steps) for score in scores] == [len(row.step_labels or ()) for row in labelled]


def test_labels_as_answers_in_the_chat_format_are_learnt_and_read(
    tiny_model: Path, labelled: list[Rollout], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    trained = train(tiny_model, labelled, work, family="rlhflow", objective="step-ce", epochs=10.0)
    assert losses(trained)[-1] < losses(trained)[0] - 0.05
    out = tmp_path / "prm"
    out.mkdir()
    card = PRMCard(family="rlhflow", objective="step-ce", step_rule=trained.step_rule)
    save_prm(trained.model, trained.tokenizer, card, out)
    scorer = load_scorer(out)
    assert isinstance(scorer, StepModelScorer)
    scores = list(scorer.score_all(labelled))
    assert [len(score.steps) for score in scores] == [len(row.step_labels or ()) for row in labelled]
    encoded = encode_examples(labelled[:1], scorer.encoding, objective=get_objective("step-ce"))[0].encoded
    assert encoded.num_scored == encoded.step_ends[-1]
    values = [step.value for score in scores for step in score.steps]
    targets = [label.label for row in labelled for label in row.step_labels or ()]
    assert np.corrcoef(values, targets)[0, 1] > 0.5

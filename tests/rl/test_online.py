from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.rl.conftest import PROMPT, RIGHT, WRONG

from stepcredit.errors import UserError
from stepcredit.lab.policies import policy_path
from stepcredit.rl import OnlinePRM, OnlineStepRewards
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.training.config import TrainConfig
from stepcredit.types import Rollout

SETTINGS: dict[str, Any] = {"beta": 0.5, "learning_rate": 1e-3, "step_rule": "newline", "batch_size": 4}


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**(SETTINGS | changes))


def batch(*verdicts: bool | None) -> list[Rollout]:
    return [
        Rollout(
            id=str(place),
            prompt_id="p",
            prompt=PROMPT,
            response=RIGHT if verdict else WRONG,
            correct=verdict,
            finish_reason="stop",
        )
        for place, verdict in enumerate(verdicts)
    ]


@pytest.fixture
def online() -> OnlinePRM:
    return OnlinePRM(policy_path("mid"), config())


def gap(prm: OnlinePRM) -> float:
    return prm.scorer.score(PROMPT, RIGHT).reward - prm.scorer.score(PROMPT, WRONG).reward


def test_it_begins_as_its_reference_and_learns_from_each_batch(online: OnlinePRM) -> None:
    assert gap(online) == pytest.approx(0.0, abs=1e-5)
    first = online.update(batch(True, False, True, False))
    assert first.loss == pytest.approx(np.log(2), abs=1e-5)
    second = online.update(batch(True, False, True, False))
    assert second.loss is not None
    assert second.loss < np.log(2)
    assert gap(online) > 0.1


def test_a_step_is_that_of_an_optimizer_on_the_mean_loss(online: OnlinePRM) -> None:
    from transformers import AutoModelForCausalLM

    online.update(batch(True, False, False))
    # By hand: AdamW on the mean cross-entropy of beta times the log-ratio, in one forward per response.
    model: Any = AutoModelForCausalLM.from_pretrained(str(policy_path("mid")), dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for rollout in batch(True, False, False):
        encoded = online.encoding.encode(rollout).encoded
        ids, start = torch.tensor([encoded.token_ids]), encoded.scored_start
        log_probs = torch.log_softmax(model(input_ids=ids).logits[0, start - 1 : -1], -1)
        own = log_probs.gather(1, ids[0, start:, None]).sum()
        reward = 0.5 * (own - own.detach())
        losses.append(torch.nn.functional.softplus(-reward if rollout.correct else reward))
    torch.stack(losses).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    twin = ImplicitPRM.from_pretrained(policy_path("mid"), policy_path("mid"), beta=0.5, steps="newline")
    twin.policy.model = model  # type: ignore[attr-defined]
    for text in (RIGHT, WRONG):
        ours, theirs = online.scorer.score(PROMPT, text), twin.score(PROMPT, text)
        assert ours.reward == pytest.approx(theirs.reward, abs=2e-4)


def test_what_is_not_graded_is_left_out(online: OnlinePRM) -> None:
    done = online.update(batch(True, None, False, None))
    assert (done.examples, done.left_out, done.steps) == (2, 2, 1)
    assert online.update(batch(None)).loss is None


def test_batches_are_cut_into_optimizer_steps_and_passes() -> None:
    prm = OnlinePRM(policy_path("mid"), config(batch_size=2, epochs=2))
    assert prm.update(batch(True, False, True)).steps == 4


@pytest.mark.parametrize(("epochs", "steps"), [(0.1, 1), (0.5, 2), (1.0, 3), (1.5, 5), (2.5, 8)])
def test_a_part_of_a_pass_is_as_many_steps_as_in_training(epochs: float, steps: int) -> None:
    prm = OnlinePRM(policy_path("mid"), config(batch_size=1, epochs=epochs))
    done = prm.update(batch(True, False, True))
    assert done.steps == steps
    assert done.loss is not None


def test_classes_are_balanced_within_a_batch() -> None:
    prm = OnlinePRM(policy_path("mid"), config(balance="dataset"))
    done = prm.update(batch(True, True, True, False, None))
    assert (done.examples, done.left_out) == (2, 3)
    alone = prm.update(batch(True, True))
    assert (alone.loss, alone.examples, alone.left_out) == (None, 0, 2)


@pytest.mark.parametrize(("over_long", "examples"), [("drop", 0), ("truncate", 2)])
def test_what_is_too_long_is_left_out_or_cut(over_long: str, examples: int) -> None:
    prompt = len(OnlinePRM(policy_path("mid"), config()).encoding.prompt_ids(PROMPT))  # type: ignore[attr-defined]
    prm = OnlinePRM(policy_path("mid"), config(over_long=over_long, max_tokens=prompt + 8))
    assert prm.update(batch(True, False)).examples == examples


def test_responses_to_a_prompt_stay_in_one_step(online: OnlinePRM) -> None:
    prm = OnlinePRM(policy_path("mid"), config(batch_size=2, group_prompts=True))
    seen = []
    prm._step = lambda units: seen.append(sorted(units)) or 0.0  # type: ignore[method-assign,func-returns-value]
    rollouts = [
        replace(rollout, prompt_id=str(place % 4)) for place, rollout in enumerate(batch(*[True] * 8))
    ]
    prm.update(rollouts)
    assert sorted(seen) == [[place, place + 4] for place in range(4)]


@pytest.mark.parametrize("rank", [0, 4])
def test_in_bfloat16_model_and_reference_round_alike(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prm = OnlinePRM(policy_path("mid"), config(precision="bfloat16", lora_rank=rank))
    for text in (RIGHT, WRONG):
        assert prm.scorer.score(PROMPT, text).reward == pytest.approx(0.0, abs=1e-6)
    written: set[torch.dtype] = set()
    forward = torch.nn.Linear.forward

    def noted(linear: torch.nn.Linear, values: torch.Tensor) -> torch.Tensor:
        result = forward(linear, values)
        if linear.training:
            written.add(result.dtype)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Linear, "forward", noted)
        done = prm.update(batch(True, False))
    assert written == {torch.bfloat16}
    assert done.loss == pytest.approx(np.log(2), abs=0.01)
    assert gap(prm) > 0


@pytest.mark.parametrize("rank", [0, 4])
def test_activations_are_recomputed_where_that_is_asked_for(rank: int) -> None:
    plain, saving = (
        OnlinePRM(policy_path("mid"), config(lora_rank=rank, gradient_checkpointing=asked))
        for asked in (False, True)
    )
    assert [prm._model.is_activation_checkpointing for prm in (plain, saving)] == [False, True]
    for prm in (plain, saving):
        prm.update(batch(True, False))
    assert gap(saving) == pytest.approx(gap(plain), abs=1e-5)


def test_pairs_learn_where_a_prompt_has_both() -> None:
    prm = OnlinePRM(policy_path("mid"), config(objective="dpo"))
    assert prm.update(batch(True, True)).steps == 0
    assert prm.update(batch(True, False)).steps == 1
    assert gap(prm) > 0


def test_an_adapter_learns_against_its_base() -> None:
    prm = OnlinePRM(policy_path("mid"), config(lora_rank=4))
    for _ in range(3):
        prm.update(batch(True, False))
    assert gap(prm) > 0
    assert prm.scorer.reference is not None


def test_what_was_learned_is_saved_as_a_reward_model(online: OnlinePRM, tmp_path: Path) -> None:
    online.update(batch(True, False))
    online.save(tmp_path / "prm")
    loaded = ImplicitPRM.from_pretrained(tmp_path / "prm")
    assert loaded.score(PROMPT, RIGHT).reward == pytest.approx(
        online.scorer.score(PROMPT, RIGHT).reward, abs=1e-5
    )
    assert json.loads((tmp_path / "prm" / "prm.json").read_text())["objective"] == "ce (online)"


def right(completions: Any, **_: Any) -> list[float | None]:
    return [None if text is None else float(text == RIGHT) for text in completions]


def test_rewards_are_those_after_the_batch_or_before_it(online: OnlinePRM) -> None:
    before = OnlineStepRewards(online, right, aggregate="sum", update="after")([PROMPT] * 2, [RIGHT, WRONG])
    assert before == pytest.approx([0.0, 0.0], abs=1e-5)
    assert online.num_updates == 1
    first, second = OnlineStepRewards(online, right, aggregate="sum")([PROMPT] * 2, [RIGHT, WRONG])
    assert online.num_updates == 2
    assert first is not None
    assert second is not None
    assert first > second


class Trainer:
    """As much of a trainer as a reward function can see."""

    def __init__(self, *, training: bool) -> None:
        self.model = torch.nn.Linear(1, 1).train(training)

    def log_metric(self, name: str, value: float) -> None:
        setattr(self, name, value)


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_teaches_nothing(online: OnlinePRM, training: bool) -> None:
    log: Callable[[str, float], None] = Trainer(training=training).log_metric
    OnlineStepRewards(online, right)([PROMPT] * 2, [RIGHT, WRONG], log_metric=log)
    assert online.num_updates == int(training)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step_rule": "auto"}, "step rule cannot be chosen"),
        ({"family": "value-head"}, "only implicit reward models"),
        ({"reference_free": True}, "only implicit reward models"),
        ({"objective": "step-ce"}, "needs step labels"),
    ],
)
def test_settings_that_cannot_learn_online_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        OnlinePRM(policy_path("mid"), config(**changes))


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="there are 2, whose models would drift apart"):
        OnlinePRM(policy_path("mid"), config())


def test_a_step_that_fails_leaves_nothing_for_the_next_one(
    online: OnlinePRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = OnlinePRM(policy_path("mid"), config())
    step = online._trainer.training_step

    def failing(*arguments: Any) -> Any:
        step(*arguments)
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="out of memory"):
        patched.setattr(online._trainer, "training_step", failing)
        online.update(batch(False, True))
    for prm in (online, untouched):
        prm.update(batch(True, False))
    assert gap(online) == gap(untouched)


@pytest.mark.parametrize("outcome", [None, float("nan")])
def test_no_number_is_no_verdict(online: OnlinePRM, outcome: Any) -> None:
    OnlineStepRewards(online, lambda **_: [1.0, outcome])([PROMPT] * 2, [RIGHT, WRONG])
    twin = OnlinePRM(policy_path("mid"), config())
    twin.update(batch(True))
    assert gap(online) == pytest.approx(gap(twin), abs=1e-5)


@pytest.mark.parametrize("outcomes", [None, [1.0]])
def test_one_outcome_per_completion_is_needed(online: OnlinePRM, outcomes: Any) -> None:
    with pytest.raises(UserError, match=r"outcome: gives \d outcomes? for 2 completions"):
        OnlineStepRewards(online, lambda **_: outcomes)([PROMPT] * 2, [RIGHT, WRONG])

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from tests.rl.conftest import PROMPT, RIGHT, ids_of, messages

from stepcredit.checkpoints import load_tokenizer
from stepcredit.client import Client
from stepcredit.errors import DataError, UserError
from stepcredit.lab.policies import policy_path
from stepcredit.rl import StepRewards, token_rewards
from stepcredit.rl.verl_rewards import TokenScore, Trajectory, VerlRewards, VerlSettings, laid_out
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.remote import RemoteScorer


def rewards(prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch, **settings: object) -> VerlRewards:
    monkeypatch.setattr("stepcredit.rl.verl_rewards.load_scorer", lambda *_, **__: prm)
    tokenizer = load_tokenizer(policy_path("mid"))
    return VerlRewards(VerlSettings(prm="PRM", **settings), tokenizer)  # type: ignore[arg-type]


def trajectory(prm: ImplicitPRM, *, finished: bool = True, **fields: object) -> Trajectory:
    tokenizer = prm.encoding.tokenizer  # type: ignore[attr-defined]
    prompt = prm.encoding.prompt_ids(PROMPT)  # type: ignore[attr-defined]
    ids = ids_of(tokenizer, RIGHT, finished=finished)
    return Trajectory(prompt_ids=prompt, response_ids=ids, **fields)  # type: ignore[arg-type]


def test_process_rewards_lie_on_tokens_and_the_outcome_on_the_last(
    prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = trajectory(prm)
    score, numbers = rewards(prm, monkeypatch, process_weight=2.0, outcome_weight=3.0).score(row, 1.0)
    logged = dict(numbers)
    (process,) = token_rewards(prm, [row.prompt_ids], [row.response_ids])
    expected = 2 * process
    expected[-1] += 3.0
    assert score.tokens == pytest.approx(expected)
    assert float(score) == pytest.approx(expected.sum())
    assert logged == {
        "process_reward": pytest.approx(process.sum()),
        "clipped": 0.0,
        "unscored": 0.0,
        "acc": 1.0,
    }


def test_an_aggregate_lies_on_the_last_token(prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch) -> None:
    row = trajectory(prm, prompt=messages(PROMPT))
    score, _ = rewards(prm, monkeypatch, aggregate="min").score(row, None)
    assert np.flatnonzero(score.tokens).tolist() == [len(row.response_ids) - 1]
    assert float(score) == pytest.approx(StepRewards(prm)([PROMPT], [RIGHT])[0], abs=1e-5)


@pytest.mark.parametrize("aggregate", [None, "min"])
def test_a_response_without_text_is_not_rewarded_for_its_end(
    aggregate: str | None, prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = trajectory(prm).response_ids[-1:]
    row = Trajectory(prompt_ids=trajectory(prm).prompt_ids, response_ids=end, prompt=messages(PROMPT))
    score, logged = rewards(prm, monkeypatch, aggregate=aggregate, unscored=-5.0).score(row, 0.0)
    assert score.tokens.tolist() == [-5.0]
    assert (logged["process_reward"], logged["unscored"]) == (-5.0, 1.0)


def test_steps_of_a_model_on_a_server_beyond_its_context_have_the_reward_that_was_given(
    prm: ImplicitPRM, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [*trajectory(prm, finished=False).response_ids] * 40
    row = Trajectory(prompt_ids=trajectory(prm).prompt_ids, response_ids=long, prompt=messages(PROMPT))
    served: Any = RemoteScorer(client)
    with pytest.warns(UserWarning, match="not scored"):
        score, logged = rewards(served, monkeypatch, unscored=-5.0).score(row, None)
    assert (float(score), logged["process_reward"], logged["unscored"]) == (-5.0, -5.0, 1.0)


@pytest.mark.parametrize("aggregate", [None, "min"])
def test_a_response_beyond_the_context_has_the_reward_that_was_given(
    aggregate: str | None, prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [*trajectory(prm, finished=False).response_ids] * 40
    row = Trajectory(prompt_ids=trajectory(prm).prompt_ids, response_ids=long, prompt=messages(PROMPT))
    with pytest.warns(UserWarning, match="more than the context"):
        score, logged = rewards(prm, monkeypatch, aggregate=aggregate, unscored=-5.0).score(row, None)
    assert (float(score), logged["unscored"]) == (-5.0, 1.0)


def test_a_response_that_was_cut_off_is_logged(prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch) -> None:
    _, logged = rewards(prm, monkeypatch).score(trajectory(prm, finished=False), None)
    assert logged["clipped"] == 1.0
    assert "acc" not in logged


def test_several_turns_need_a_mask(prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch) -> None:
    scoring = rewards(prm, monkeypatch)
    with pytest.raises(UserError, match="of 4 turns has no response_mask"):
        scoring.score(trajectory(prm, num_turns=4), None)
    mask = [1] * 6 + [0] * 6
    mask += [1] * (len(trajectory(prm).response_ids) - 12)
    score, _ = scoring.score(trajectory(prm, num_turns=4, mask=mask), None)
    assert score.tokens[6:12].tolist() == [0.0] * 6


def test_an_aggregate_needs_the_prompt(prm: ImplicitPRM, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no raw_prompt.*return_raw_chat=True"):
        rewards(prm, monkeypatch, aggregate="min").score(trajectory(prm), None)


def test_a_score_is_a_number_that_travels_with_its_tokens() -> None:
    score = TokenScore(np.array([1.0, -0.5]))
    assert score == 0.5
    assert pickle.loads(pickle.dumps(score)).tokens.tolist() == [1.0, -0.5]


def test_scores_are_laid_out_from_the_left() -> None:
    rows = laid_out([TokenScore(np.array([1.0, 2.0])), 5.0], [2, 3], 4)
    assert rows.tolist() == [[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]]


def test_scores_of_another_response_are_refused() -> None:
    with pytest.raises(DataError, match="response 0: has 3 tokens and rewards for 2"):
        laid_out([TokenScore(np.zeros(2))], [3], 4)

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from tests.rl.conftest import BEGUN, PROMPT, RIGHT, WRONG, answers, ids_of, lab_prm, messages

from stepcredit.client import Client
from stepcredit.errors import DataError, UserError
from stepcredit.rl import StepRewards
from stepcredit.scorers.implicit import ImplicitPRM

TEXTS = [RIGHT, WRONG, BEGUN]


def test_rewards_are_the_aggregates_of_the_scorers_own_scores(prm: ImplicitPRM) -> None:
    rewards = StepRewards(prm, aggregate="min")([PROMPT] * 2, [RIGHT, WRONG])
    scores = [prm.score(PROMPT, text).aggregates["min"] for text in (RIGHT, WRONG)]
    assert rewards == pytest.approx(scores, abs=1e-5)
    assert rewards[0] is not None
    assert rewards[1] is not None
    assert rewards[0] > rewards[1]


def test_the_models_own_reward_can_stand_for_the_response(prm: ImplicitPRM) -> None:
    assert StepRewards(prm, aggregate="reward")([PROMPT], [RIGHT]) == [
        pytest.approx(prm.score(PROMPT, RIGHT).reward, abs=1e-5)
    ]


def test_conversations_are_text_and_messages_alike(prm: ImplicitPRM) -> None:
    rewards = StepRewards(prm)
    as_messages = rewards([messages(PROMPT)] * 2, answers([RIGHT, WRONG]))
    assert as_messages == pytest.approx(rewards([PROMPT] * 2, [RIGHT, WRONG]), abs=1e-5)


def test_a_completion_that_was_cut_off_has_no_end_of_turn(prm: ImplicitPRM) -> None:
    tokenizer = prm.encoding.tokenizer  # type: ignore[attr-defined]
    rewards = StepRewards(prm, aggregate="sum")
    (cut,) = rewards([PROMPT], [BEGUN], [ids_of(tokenizer, BEGUN, finished=False)])
    (ended,) = rewards([PROMPT], [BEGUN], [ids_of(tokenizer, BEGUN)])
    assert cut == pytest.approx(prm.score(PROMPT, BEGUN, finished=False).aggregates["sum"], abs=1e-5)
    assert ended == pytest.approx(prm.score(PROMPT, BEGUN).aggregates["sum"], abs=1e-5)
    assert cut != pytest.approx(ended, abs=1e-3)


def test_token_ids_win_over_the_text(prm: ImplicitPRM) -> None:
    ids = ids_of(prm.encoding.tokenizer, WRONG)  # type: ignore[attr-defined]
    trimmed = WRONG.rpartition("\n")[2]
    assert StepRewards(prm)([PROMPT], [trimmed], [ids]) == pytest.approx(StepRewards(prm)([PROMPT], [WRONG]))


@pytest.mark.parametrize("ids", [[], "eos", "blank"])
def test_a_completion_without_text_is_not_rewarded(prm: ImplicitPRM, ids: Any) -> None:
    tokenizer: Any = prm.encoding.tokenizer  # type: ignore[attr-defined]
    ids = {"eos": ids_of(tokenizer, ""), "blank": ids_of(tokenizer, "\n")}.get(ids, ids) if ids else ids
    rewards = StepRewards(prm, unscored=-5.0)
    assert rewards([PROMPT] * 2, ["", RIGHT], [ids, ids_of(tokenizer, RIGHT)])[0] == -5.0
    assert StepRewards(prm)([PROMPT], [""], [ids]) == [None]


def test_what_was_cut_off_empty_or_too_long_is_logged(prm: ImplicitPRM) -> None:
    tokenizer = prm.encoding.tokenizer  # type: ignore[attr-defined]
    texts = ["", BEGUN, RIGHT, "1+1=2\n" * 60]
    ids = [ids_of(tokenizer, text, finished=text == RIGHT) for text in texts]
    logged: dict[str, float] = {}
    with pytest.warns(UserWarning, match="completion-3: .* tokens, more than the context"):
        rewards = StepRewards(prm)([PROMPT] * 4, texts, ids, log_metric=logged.__setitem__)
    assert [reward is None for reward in rewards] == [True, False, False, True]
    assert logged == {
        "step_rewards_min/clipped": 0.75,
        "step_rewards_min/empty": 0.25,
        "step_rewards_min/unscored": 0.5,
    }


def test_nothing_is_logged_of_a_batch_without_completions(prm: ImplicitPRM) -> None:
    logged: dict[str, float] = {}
    assert StepRewards(prm)([], [], log_metric=logged.__setitem__) == []
    assert not logged


def test_a_completion_that_cannot_be_read_is_warned_of_once(prm: ImplicitPRM) -> None:
    rewards = StepRewards(prm)
    long = "1+1=2\n" * 60
    with pytest.warns(UserWarning, match="step_rewards_min: not scored, as others like it: completion-1: "):
        assert rewards([PROMPT] * 2, [RIGHT, long])[1] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rewards([PROMPT] * 2, [long, RIGHT])[0] is None


def test_tools_that_no_completion_can_be_read_with_are_refused(prm: ImplicitPRM) -> None:
    """Else every reward would be missing, and a run would go on without any."""
    with pytest.raises(DataError, match="completion-0: "):
        StepRewards(prm)([PROMPT] * 2, [RIGHT, WRONG], tools=["add", "add"])


def test_several_turns_with_ids_that_do_not_say_who_wrote_them_are_refused(prm: ImplicitPRM) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "8"},
        {"role": "assistant", "content": "#8"},
    ]
    ids = prm.encoding.tokenizer(RIGHT)["input_ids"]  # type: ignore[attr-defined]
    for completion in (turns, turns[:1]):
        with pytest.raises(DataError, match=r"^completion-1: has several turns or a tool call.*loss mask"):
            StepRewards(prm)([PROMPT] * 2, [answers([RIGHT])[0], completion], [ids, ids])


def test_ids_of_another_tokenizer_are_noticed(prm: ImplicitPRM) -> None:
    with pytest.raises(DataError, match=r"does not contain its text .* tokenizer="):
        StepRewards(prm)([PROMPT], [RIGHT], [[7, 8, 9]])


def test_numbers_that_do_not_match_are_noticed(prm: ImplicitPRM) -> None:
    with pytest.raises(DataError, match="there are 2 prompts, 1 completions"):
        StepRewards(prm)([PROMPT] * 2, [RIGHT])


def test_an_aggregate_that_there_is_not_is_refused_at_once(prm: ImplicitPRM) -> None:
    with pytest.raises(UserError, match=r"no aggregate 'mni'. Did you mean 'min'"):
        StepRewards(prm, aggregate="mni")


def test_a_client_gives_the_rewards_of_its_server(prm: ImplicitPRM, client: Client) -> None:
    tokenizer = prm.encoding.tokenizer  # type: ignore[attr-defined]
    ids = [ids_of(tokenizer, text, finished=text != BEGUN) for text in TEXTS]
    remote = StepRewards(client, tokenizer=tokenizer)
    assert remote([PROMPT] * 3, TEXTS, ids) == pytest.approx(
        StepRewards(prm)([PROMPT] * 3, TEXTS, ids), abs=1e-5
    )


def test_completions_that_are_all_too_long_end_no_training_with_a_client(client: Client) -> None:
    with pytest.warns(UserWarning, match="more than the context"):
        assert StepRewards(client, unscored=-1.0)([PROMPT] * 2, ["1+1=2\n" * 60] * 2) == [-1.0, -1.0]


def test_with_a_client_the_policys_tokenizer_must_be_named(client: Client) -> None:
    rewards = StepRewards(client)
    assert rewards([PROMPT], [RIGHT])[0] is not None
    with pytest.raises(UserError, match=r"which completions were cut off.*tokenizer="):
        rewards([PROMPT], [RIGHT], [[1, 2]])


def test_token_rewards_line_up_with_the_trainers_ids(prm: ImplicitPRM) -> None:
    tokenizer = prm.encoding.tokenizer  # type: ignore[attr-defined]
    ids = [ids_of(tokenizer, text, finished=text != BEGUN) for text in TEXTS] + [[]]
    arrays = StepRewards(prm).per_token([PROMPT] * 4, ids)
    assert [len(array) for array in arrays] == [len(tokens) for tokens in ids]
    twin = lab_prm(with_tokens=True)
    for text, array in zip(TEXTS, arrays, strict=False):
        score = twin.score(PROMPT, text, finished=text != BEGUN)
        assert array == pytest.approx(np.array(score.token_rewards), abs=1e-5)
    assert not prm.with_tokens


def test_a_steps_reward_lies_on_its_last_token(prm: ImplicitPRM, client: Client) -> None:
    tokenizer = prm.encoding.tokenizer  # type: ignore[attr-defined]
    ids = ids_of(tokenizer, RIGHT)
    for rewards in (StepRewards(prm), StepRewards(client, tokenizer=tokenizer)):
        (array,) = rewards.per_token([PROMPT], [ids], layout="steps")
        # One token a character: steps end with their newline, and the last one with the end of the turn.
        places = [place for place, token in enumerate(RIGHT) if token == "\n"] + [len(ids) - 1]
        assert np.flatnonzero(array).tolist() == places
        expected = [step.reward for step in prm.score(PROMPT, RIGHT).steps]
        assert array[places] == pytest.approx(expected, abs=1e-5)


def test_a_layout_that_there_is_not_is_refused(prm: ImplicitPRM) -> None:
    with pytest.raises(UserError, match=r"no layout 'step'. Did you mean 'steps'"):
        StepRewards(prm).per_token([PROMPT], [[1]], layout="step")  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": RIGHT}]])
def test_a_turn_without_plain_text_is_read_by_its_ids(prm: ImplicitPRM, content: Any) -> None:
    ids = ids_of(prm.encoding.tokenizer, RIGHT)  # type: ignore[attr-defined]
    turn: Any = {"role": "assistant", "content": content, "reasoning_content": None}
    assert StepRewards(prm)([PROMPT], [[turn]], [ids]) == StepRewards(prm)([PROMPT], [RIGHT], [ids])


@pytest.mark.parametrize("padding", [-100, 10**6])
def test_ids_that_are_no_tokens_are_refused(prm: ImplicitPRM, padding: int) -> None:
    with pytest.raises(DataError, match=f"token {padding} is not one of the tokenizer's 24"):
        StepRewards(prm).per_token([PROMPT], [[1, padding]])

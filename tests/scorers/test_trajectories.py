"""Rows with tools, thinking and several turns, scored by every way there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.chat_families import ASKED, FAMILIES, TOOL, TURNS
from tests.scorers.test_implicit import naive_log_probs
from tests.serving.conftest import running

from stepcredit import ImplicitPRM
from stepcredit.chat_templates import ChatOptions
from stepcredit.checkpoints import LoadOptions, PRMCard, load_model
from stepcredit.data import write_rows
from stepcredit.errors import UserError
from stepcredit.pipelines import score
from stepcredit.rl import StepRewards
from stepcredit.scorers.kinds import load_scorer
from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.service import Service

BETA = 0.5
ROW: dict[str, Any] = {"id": "r", "prompt_id": "p", "prompt": ASKED, "response": TURNS, "tools": [TOOL]}
CUT: dict[str, Any] = {**ROW, "id": "c", "finish_reason": "length"}
PLAIN: dict[str, Any] = {"id": "q", "prompt_id": "p", "prompt": ASKED, "response": "3 + 4 = 7\nso 7"}


@pytest.fixture
def pair(
    tmp_path: Path, family: str, make_tokenizer: Callable[..., Any], make_model: Callable[..., Any]
) -> tuple[Path, Path]:
    """A policy and a reference of a family."""
    for seed, name in enumerate(("policy", "reference")):
        make_model(seed).save_pretrained(tmp_path / name)
        FAMILIES[family].tokenizer(make_tokenizer).save_pretrained(tmp_path / name)
    return tmp_path / "policy", tmp_path / "reference"


def prm_of(pair: tuple[Path, Path], **settings: Any) -> ImplicitPRM:
    return ImplicitPRM.from_pretrained(*pair, BETA, **{"steps": "turn", **settings})


def naive_turn_rewards(family: str, pair: tuple[Path, Path], tokenizer: Any) -> list[float]:
    """In float64, by characters: every token counts for the turn of the assistant in which it starts."""
    pieces = list(FAMILIES[family].pieces([*ASKED, *TURNS], [TOOL]))
    text = "".join(piece for piece, _ in pieces)
    owner: list[int | None] = []
    turn = -1
    for piece, written in pieces:
        turn += written
        owner += [turn if written else None] * len(piece)
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    policy, reference = (naive_log_probs(load_model(path), whole["input_ids"]) for path in pair)
    rewards = [0.0] * (turn + 1)
    for (start, _), ratio in zip(whole["offset_mapping"][1:], (policy - reference).tolist(), strict=True):
        place = owner[start]
        if place is not None:
            rewards[place] += BETA * ratio
    return rewards


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma", "marked"])
def test_rewards_by_turn_against_a_naive_float64_computation(family: str, pair: tuple[Path, Path]) -> None:
    prm = prm_of(pair, with_tokens=True)
    (score,) = prm.score_all([ROW])
    expected = naive_turn_rewards(family, pair, prm.encoding.tokenizer)  # type: ignore[attr-defined]
    assert [step.reward for step in score.steps] == pytest.approx(expected, abs=2e-5)
    assert score.reward == pytest.approx(sum(expected), rel=1e-6)
    assert score.token_rewards is not None
    assert len(score.token_rewards) == score.num_tokens
    assert score.scored_text == "".join(step.text for step in score.steps)
    finer = prm_of(pair, steps="newline")
    (lines,) = finer.score_all([ROW])
    assert len(lines.steps) == 7
    assert lines.reward == pytest.approx(score.reward, rel=1e-6)


@pytest.mark.parametrize("family", ["llama"])
def test_a_server_and_its_clients_give_the_same(pair: tuple[Path, Path]) -> None:
    prm = prm_of(pair)
    here = list(prm.score_all([ROW, CUT, PLAIN]))
    batcher = Batcher(prm_of(pair), batch_tokens=4096, queue_tokens=1 << 16)
    try:
        with running(make_app(Service({"m": batcher}, ServerOptions()))) as address:
            remote = load_scorer(address)
            for ours, theirs in zip(here, remote.score_all([ROW, CUT, PLAIN]), strict=True):
                assert theirs.reward == pytest.approx(ours.reward, abs=1e-5)
                assert [step.text for step in theirs.steps] == [step.text for step in ours.steps]
                assert theirs.id == ours.id
            with pytest.raises(UserError, match=r"responses\.0.*no turn of the assistant"):
                remote.client.score("q", [[{"role": "user", "content": "x"}]])  # type: ignore[attr-defined]
    finally:
        batcher.close()


@pytest.mark.parametrize("family", ["gemma"])
def test_a_reward_function_takes_turns_as_messages(pair: tuple[Path, Path]) -> None:
    prm = prm_of(pair)
    reward = StepRewards(prm, aggregate="reward")
    for tools in (None, [[TOOL]]):
        (score,) = prm.score_all([{**ROW, "tools": tools and tools[0]}])
        rewards = reward([ASKED], [TURNS], tools=tools)
        assert rewards == pytest.approx([score.reward], abs=1e-5)


@pytest.mark.parametrize("family", ["qwen"])
def test_rewards_per_token_are_given_the_tools_too(pair: tuple[Path, Path]) -> None:
    prm = prm_of(pair, with_tokens=True)
    ids = prm.encoding.tokenizer("3 + 4 = 7<|im_end|>", add_special_tokens=False)["input_ids"]  # type: ignore[attr-defined]
    (expected,) = prm.score_all([{**PLAIN, "response": "3 + 4 = 7", "tools": [TOOL]}])
    (rewards,) = StepRewards(prm).per_token([ASKED], [ids], tools=[[TOOL]])
    assert rewards.sum() == pytest.approx(expected.reward, abs=1e-5)
    (without,) = StepRewards(prm).per_token([ASKED], [ids])
    assert without.sum() != pytest.approx(expected.reward, abs=1e-3)


@pytest.mark.parametrize("family", ["qwen"])
def test_a_rule_is_chosen_for_turns_as_for_texts(pair: tuple[Path, Path], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [ROW, CUT, PLAIN])
    options = score.Options(
        input=tmp_path / "rows.jsonl",
        out=tmp_path / "scores.jsonl",
        prm=str(pair[0]),
        reference=str(pair[1]),
        beta=BETA,
    )
    result = score.run(options)
    assert isinstance(result, score.Result)
    assert (result.counts["scored"], result.step_rule) == (3, "step-number")


@pytest.mark.parametrize("family", ["qwen"])
def test_a_session_that_remembers_gives_the_same(pair: tuple[Path, Path]) -> None:
    prm = prm_of(pair)
    (score,) = prm.score_all([ROW])
    with prm.session() as remembering:
        for _ in range(2):
            (again,) = remembering.score_all([ROW])
            assert again.reward == pytest.approx(score.reward, abs=1e-5)


@pytest.mark.parametrize("family", ["qwen"])
def test_kinds_whose_format_knows_one_text_refuse_turns(pair: tuple[Path, Path]) -> None:
    scorer = load_scorer(pair[0], reference=pair[1], beta=BETA, convention="processbench")
    with pytest.raises(UserError, match="r: the response is a list of turns, where this takes one text"):
        list(scorer.score_all([ROW]))
    with pytest.raises(UserError, match="--max-step-tokens: the format processbench does not merge steps"):
        load_scorer(pair[0], reference=pair[1], beta=BETA, convention="processbench", steps="thinking:9")


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
def test_long_thinking_in_groups_of_tokens(family: str, pair: tuple[Path, Path]) -> None:
    thinking = "".join(f"Then {number}.\n\n" for number in range(9))
    row = {**PLAIN, "response": f"<think>\n{thinking}</think>\n\nThe answer is 7"}
    (single,) = prm_of(pair, steps="thinking").score_all([row])
    (grouped,) = prm_of(pair, steps="thinking:24").score_all([row])
    (one,) = prm_of(pair, steps="thinking:999").score_all([row])
    assert len(single.steps) == 10
    assert 1 < len(grouped.steps) < 10
    assert [step.text for step in one.steps] == [row["response"]]
    places = [step.end for step in grouped.steps]
    assert set(places) <= {step.end for step in single.steps}
    values = {step.end: step.value for step in single.steps}
    assert [step.value for step in grouped.steps] == pytest.approx([values[end] for end in places], abs=1e-5)


@pytest.mark.parametrize("family", ["llama"])
def test_what_a_model_was_trained_with_is_kept_and_compared(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = prm_of(pair)
    (usual,) = plain.score_all([PLAIN])
    later = LoadOptions(chat=ChatOptions(template_date="2026-11-29"))
    (dated,) = prm_of(pair, load=later).score_all([PLAIN])
    assert dated.reward != pytest.approx(usual.reward, abs=1e-4)
    assert capsys.readouterr().err == ""
    card = PRMCard(beta=BETA, step_rule="turn", reference=None, settings={"reference_free": False})
    card.write(pair[0])
    (unknown,) = prm_of(pair).score_all([PLAIN])
    assert unknown.reward == pytest.approx(usual.reward, abs=1e-6)
    assert "its chat template reads the clock, and prm.json has no date" in capsys.readouterr().err
    PRMCard(beta=BETA, step_rule="turn", template_date="2026-11-29", boundary="apart").write(pair[0])
    (own,) = prm_of(pair).score_all([PLAIN])
    assert own.reward == pytest.approx(dated.reward, abs=1e-6)
    assert "reads the clock" not in capsys.readouterr().err
    for other, message in (
        (
            ChatOptions(template_date="2026-12-13"),
            "--template-date 2026-12-13 is not what it was",
        ),
        (ChatOptions(boundary="together"), "--boundary together is not what it was trained with"),
        (ChatOptions(template_arg=("x=1",)), "--template-arg .* is not what it was trained with"),
    ):
        with pytest.raises(UserError, match=message):
            prm_of(pair, load=LoadOptions(chat=other))

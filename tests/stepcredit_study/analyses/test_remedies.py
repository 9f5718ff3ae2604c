from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepcredit.data import rollout_to_json, score_to_json, write_rows
from stepcredit.types import ResponseScore, Rollout, StepScore
from stepcredit_study.analyses.remedies import (
    REMEDIES,
    TokenBed,
    clipped,
    filtered,
    floored,
    log_ratio,
    mixed,
    pessimistic,
)
from stepcredit_study.frame.measuring import TestBed
from stepcredit_study.frame.world import Responses

POLICY, REFERENCE = np.log([0.9, 0.02, 0.5]), np.log([0.3, 0.002, 0.5])


def test_a_floor_lies_between_the_log_ratio_and_the_reward_without_reference() -> None:
    assert floored(POLICY, REFERENCE, 1e-9) == pytest.approx(log_ratio(POLICY, REFERENCE, 0.0))
    assert floored(POLICY, REFERENCE, 1.0) == pytest.approx(POLICY)
    assert floored(POLICY, REFERENCE, 0.1) == pytest.approx(np.log([3.0, 0.2, 1.0]))


def test_a_likelihood_term_of_share_one_is_the_reward_without_reference() -> None:
    assert mixed(POLICY, REFERENCE, 0.0) == pytest.approx(log_ratio(POLICY, REFERENCE, 0.0))
    assert mixed(POLICY, REFERENCE, 1.0) == pytest.approx(POLICY)


def test_pessimism_charges_rare_tokens_their_standard_error_and_certain_ones_nothing() -> None:
    zero = np.zeros(2)
    charged = pessimistic(zero, np.log([1.0, 0.25]), 0.1) - log_ratio(zero, np.log([1.0, 0.25]), 0.0)
    assert charged == pytest.approx([0.0, -0.1])  # 0.1 * (1 / sqrt(0.25) - 1)


def test_clipping_bounds_a_token_to_both_sides() -> None:
    assert clipped(POLICY, REFERENCE, 1.0).tolist() == [1.0, 1.0, 0.0]


def test_a_filter_puts_responses_with_a_rare_token_last() -> None:
    rewards = filtered(POLICY, REFERENCE, 0.03)
    assert rewards[1] < -1e5
    assert rewards[[0, 2]] == pytest.approx(log_ratio(POLICY, REFERENCE, 0.0)[[0, 2]])


BETA = 0.5
RESPONSES = {"right": [(0.9, 0.3)], "wrong": [(0.1, 0.6)], "rare": [(0.02, 0.002)]}
"""Response to (policy, reference) probability of its tokens; the rare one has the highest log-ratio."""


def scores(folder: Path, name: str, values: dict[str, list[float]]) -> Path:
    rows = [
        ResponseScore(
            id=response,
            prompt_id="p",
            reward=sum(rewards),
            steps=(StepScore(0, response, 0, len(response), sum(rewards), sum(rewards)),),
            aggregates={"min": sum(rewards)},
            num_tokens=len(rewards),
            scorer=name,
            token_rewards=tuple(rewards),
            token_ends=(len(response),) * len(rewards),
        )
        for response, rewards in values.items()
    ]
    write_rows(folder / f"{name}.jsonl", map(score_to_json, rows))
    return folder / f"{name}.jsonl"


@pytest.fixture
def bed(tmp_path: Path) -> TokenBed:
    rollouts = [
        Rollout(id=name, prompt_id="p", prompt="?", response=name, index=index, correct=name == "right")
        for index, name in enumerate(RESPONSES)
    ]
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rollouts))
    responses = Responses(tmp_path / "graded.jsonl", tmp_path / "graded.jsonl")
    ratios = {r: [BETA * float(np.log(p / q)) for p, q in tokens] for r, tokens in RESPONSES.items()}
    known = {r: [float(np.log(q)) for _, q in tokens] for r, tokens in RESPONSES.items()}
    model, reference = scores(tmp_path, "prm", ratios), scores(tmp_path, "reference", known)
    return TokenBed(TestBed(responses, (1, 3)), {"prm": model}, {"prm": BETA}, reference)


def test_token_rewards_are_read_back_as_log_ratios(bed: TokenBed) -> None:
    scoring = bed.choose(("prm",), REMEDIES["as trained"], "min")
    assert bed.scores(scoring)[0] == pytest.approx(np.log([3.0, 1 / 6, 10.0]))
    assert bed.accuracy(scoring) == pytest.approx({1: 1 / 3, 3: 0.0})


def test_what_is_outside_the_support_is_known(bed: TokenBed) -> None:
    assert bed.holds_rare().tolist() == [[False, False, True]]


def test_the_log_ratios_of_rare_tokens_are_those_of_the_chosen_responses(bed: TokenBed) -> None:
    everything, all_but_the_rare = np.array([[True, True, True]]), np.array([[True, True, False]])
    assert bed.rare_ratios("prm", everything) == pytest.approx(np.log([10.0]))
    assert bed.rare_ratios("prm", all_but_the_rare).size == 0


@pytest.mark.parametrize("name", ["reference filter", "reference floor", "reference-free", "lower bound"])
def test_a_remedy_keeps_a_rare_token_from_being_picked(bed: TokenBed, name: str) -> None:
    scoring = bed.choose(("prm",), REMEDIES[name], "min")
    assert bed.accuracy(scoring)[3] == 1.0


def test_of_several_models_the_lowest_step_reward_counts(bed: TokenBed, tmp_path: Path) -> None:
    other = scores(tmp_path, "other", {"right": [0.0], "wrong": [0.0], "rare": [-5.0]})
    paths, betas = {"prm": tmp_path / "prm.jsonl", "other": other}, {"prm": BETA, "other": BETA}
    both = TokenBed(bed.bed, paths, betas, tmp_path / "reference.jsonl")
    assert both.scores(both.choose(("prm", "other"), REMEDIES["as trained"], "min"))[0] == pytest.approx(
        [0.0, np.log(1 / 6), -10.0]
    )

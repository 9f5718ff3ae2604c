"""Operations follow the stated formula."""

from __future__ import annotations

from stepcredit.runs import Ledger


def test_operations_are_two_per_parameter_and_token_forward_and_six_in_training() -> None:
    ledger = Ledger(10, prompt_tokens=1, generated_tokens=2, scored_tokens=4, trained_tokens=8)
    assert ledger.flops == 2 * 10 * 7 + 6 * 10 * 8
    assert ledger.to_json()["flops"] == ledger.flops
    assert "scoring_parameters" not in ledger.to_json()


def test_models_that_score_what_another_draws_count_by_their_own_size() -> None:
    ledger = Ledger(10, scoring_parameters=25, generated_tokens=2, scored_tokens=4)
    assert ledger.flops == 2 * (10 * 2 + 25 * 4)
    assert ledger.to_json()["scoring_parameters"] == 25
    unknown = Ledger(10, scoring_parameters=0, generated_tokens=2, scored_tokens=4)
    assert unknown.flops == 2 * 10 * 2

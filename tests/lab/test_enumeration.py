from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Int
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepcredit.lab.enumeration import (
    Completions,
    NextLogProbs,
    enumerate_completions,
    exact_value,
    next_log_probs_of,
    sequence_log_probs,
)
from stepcredit.lab.policies import policy_path

END, VOCABULARY, LENGTH = 0, 3, 5


def random_model(seed: int) -> NextLogProbs:
    """Next-token distributions that depend on the whole sequence."""

    def next_log_probs(sequences: Int[np.ndarray, "n length"]) -> Float[np.ndarray, "n vocabulary"]:
        rows = []
        for sequence in sequences.tolist():
            logits = np.random.default_rng([seed, len(sequence), *sequence]).normal(size=VOCABULARY) * 2
            rows.append(logits - np.log(np.exp(logits).sum()))
        return np.array(rows)

    return next_log_probs


def always(*probabilities: float) -> NextLogProbs:
    with np.errstate(divide="ignore"):
        row = np.log(np.array(probabilities))
    return lambda sequences: np.tile(row, (len(sequences), 1))


def test_completions_of_a_coin_by_hand() -> None:
    completions = enumerate_completions(always(0.25, 0.75), (1,), end_token=END, max_length=3)
    assert dict(zip(completions.sequences, np.exp(completions.log_probs), strict=True)) == pytest.approx(
        {(1, 0): 0.25, (1, 1, 0): 0.1875, (1, 1, 1): 0.5625}
    )


def test_what_cannot_happen_is_left_out_and_a_finished_prefix_has_only_itself() -> None:
    completions = enumerate_completions(always(0.5, 0.0, 0.5), (1,), end_token=END, max_length=2)
    assert completions.sequences == ((1, 0), (1, 2))
    done = enumerate_completions(always(0.5, 0.5), (1, 0), end_token=END, max_length=9)
    assert (done.sequences, done.log_probs.tolist()) == (((1, 0),), [0.0])
    with pytest.raises(ValueError, match="max_length"):
        enumerate_completions(always(0.5, 0.5), (1, 1, 1), end_token=END, max_length=2)


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_probabilities_sum_to_one_and_agree_with_the_chain_rule(seed: int) -> None:
    model = random_model(seed)
    completions = enumerate_completions(model, (1,), end_token=END, max_length=LENGTH)
    assert np.exp(completions.log_probs).sum() == pytest.approx(1.0, abs=1e-12)
    assert len(set(completions.sequences)) == len(completions.sequences)
    chained = [
        sum(model(np.array([s[:t]]))[0, s[t]] for t in range(1, len(s))) for s in completions.sequences
    ]
    np.testing.assert_allclose(sequence_log_probs(model, completions.sequences, start=1), chained, atol=1e-12)
    np.testing.assert_allclose(completions.log_probs, chained, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([0.05, 1.0, 20.0]))
@settings(max_examples=20)
def test_the_implicit_value_is_the_exact_value_of_every_prefix(seed: int, beta: float) -> None:
    """Proposition 3.1 for r = beta log(policy / reference), whatever the policy."""
    policy, reference = random_model(seed), random_model(seed + 1)
    response = enumerate_completions(policy, (2,), end_token=END, max_length=LENGTH).sequences[seed % 7]
    for end in range(1, len(response) + 1):
        prefix = response[:end]
        completions = enumerate_completions(reference, prefix, end_token=END, max_length=LENGTH)
        ratios = [sequence_log_probs(model, completions.sequences, start=1) for model in (policy, reference)]
        value = exact_value(completions, beta * (ratios[0] - ratios[1]), beta=beta)
        implicit = [sequence_log_probs(model, [prefix], start=1)[0] for model in (policy, reference)]
        assert value.log_mean_exp == pytest.approx(
            beta * (implicit[0] - implicit[1]), abs=1e-11 * beta + 1e-11
        )
        assert value.mean <= value.log_mean_exp + 1e-9
        assert value.log_mean_exp <= value.maximum + 1e-9


def test_the_implicit_value_of_shipped_policies_is_exact_to_float_precision() -> None:
    policies = [
        next_log_probs_of(AutoModelForCausalLM.from_pretrained(policy_path(name), dtype=torch.float64))
        for name in ("strong", "mid")
    ]
    tokenizer = AutoTokenizer.from_pretrained(policy_path("mid"))
    prompt = tokenizer("<|user|>7*8+5=<|assistant|>")["input_ids"]
    prefix = [*prompt, *tokenizer("7*8=6\n6+")["input_ids"]]
    limits = {"end_token": tokenizer.eos_token_id, "max_length": len(prefix) + 2}
    completions = enumerate_completions(policies[1], prefix, **limits)
    assert len(completions.sequences) > 500
    ratios = [sequence_log_probs(p, completions.sequences, start=len(prompt)) for p in policies]
    implicit = [sequence_log_probs(p, [prefix], start=len(prompt))[0] for p in policies]
    value = exact_value(completions, 0.5 * (ratios[0] - ratios[1]), beta=0.5)
    assert value.log_mean_exp == pytest.approx(0.5 * (implicit[0] - implicit[1]), abs=1e-10)


def test_values_of_two_outcomes_by_hand_and_their_limits_over_beta() -> None:
    fair = Completions(((1, 0), (1, 1)), np.log([0.5, 0.5]))
    rewards = np.array([0.0, 1.0])
    value = exact_value(fair, rewards, beta=1.0)
    assert value.log_mean_exp == pytest.approx(math.log((1 + math.e) / 2))
    assert (value.mean, value.maximum) == (0.5, 1.0)
    assert exact_value(fair, rewards, beta=1e-3).log_mean_exp == pytest.approx(1.0, abs=1e-3)
    assert exact_value(fair, rewards, beta=1e4).log_mean_exp == pytest.approx(0.5, abs=1e-4)

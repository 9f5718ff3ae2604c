from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcredit.errors import CheckpointError
from stepcredit.generators.drawing import Truncation, draw, token_weights
from stepcredit.types import Sampling


def _naive(logits: Any, sampling: Sampling) -> list[float]:
    ranked = sorted(range(len(logits)), key=lambda token: -float(logits[token]))
    weights = [float(np.exp((float(x) - float(max(logits))) / sampling.temperature)) for x in logits]
    if sampling.top_k:
        ranked = ranked[: sampling.top_k]
    if sampling.top_p < 1:
        total, reached, kept = sum(weights[token] for token in ranked), 0.0, 0
        while reached < sampling.top_p * total:
            reached += weights[ranked[kept]]
            kept += 1
        ranked = ranked[:kept]
    return [w if token in ranked and w >= sampling.min_p else 0.0 for token, w in enumerate(weights)]


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.sampled_from([2, 7, 40, 300]),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.999, 1e-9]),
    top_k=st.sampled_from([0, 1, 5, 1000]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_weights_equal_a_naive_ranking(
    seed: int, vocabulary: int, temperature: float, top_p: float, top_k: int, min_p: float
) -> None:
    logits = np.random.default_rng(seed).normal(size=(3, vocabulary)) * 2
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    weights = token_weights(torch.from_numpy(logits), Truncation.of(sampling)).numpy()
    for row, weights_of_row in zip(logits, weights, strict=True):
        np.testing.assert_allclose(weights_of_row, _naive(row, sampling), rtol=1e-13, atol=0)


def test_truncations_on_hand_worked_probabilities() -> None:
    # Probabilities .4 .3 .2 .1. Top-p .7 keeps two (they reach it exactly); top-k 3 then top-p .8 of .9 = .72
    # keeps three; min-p .3 drops what is below .12.
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()

    def kept(**settings: Any) -> list[bool]:
        sampling = Sampling(**settings)
        return (token_weights(logits, Truncation.of(sampling))[0] > 0).tolist()

    assert kept(top_p=0.69) == [True, True, False, False]
    assert kept(top_p=0.71) == [True, True, True, False]
    assert kept(top_k=2) == [True, True, False, False]
    assert kept(top_k=3, top_p=0.8) == [True, True, True, False]
    assert kept(top_k=3, top_p=0.77) == [True, True, False, False]
    assert kept(min_p=0.3) == [True, True, True, False]
    # At temperature 0.5 the probabilities are .16 .09 .04 .01 over .30: .533 .3 .133 .033.
    assert kept(temperature=0.5, top_p=0.5) == [True, False, False, False]


def test_tokens_as_likely_as_the_last_one_kept_stay() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, -1.0]])
    assert (token_weights(logits, Truncation(1.0, 1.0, 2, 0.0))[0] > 0).tolist() == [True, True, True, False]


def test_a_wide_nucleus_is_found_beyond_the_first_look() -> None:
    logits = torch.zeros(1, 1000, dtype=torch.float64)
    logits[0, 500] = 1e-3
    weights = token_weights(logits - torch.arange(1000) * 1e-6, Truncation(1.0, 0.5, 0, 0.0))
    assert int((weights > 0).sum()) == 500


def test_rows_of_one_batch_have_nuclei_of_any_width() -> None:
    widths = [1, 15_000, 100, 3_000, 128, 129, 1_024, 8_192, 8_193, 20_000]
    logits = torch.full((len(widths), 20_000), -60.0, dtype=torch.float64)
    order = torch.from_numpy(np.random.default_rng(0).permutation(20_000))
    for row, width in enumerate(widths):
        logits[row, order[:width]] = -1e-6 * torch.arange(width, dtype=torch.float64)
    # Each row has `width` tokens that are about as likely; the last of them is needed to reach the share.
    weights = token_weights(logits, Truncation(1.0, 1 - 1e-5, 0, 0.0))
    kept = [set(np.flatnonzero(row).tolist()) for row in weights.numpy()]
    assert kept == [set(order[:width].tolist()) for width in widths]


def test_a_draw_inverts_the_cumulative_distribution_exactly() -> None:
    probabilities = torch.tensor([[0.25, 0.0, 0.5, 0.25], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    rows = np.asarray([1, 0, 0, 0, 0, 0, 1])
    numbers = np.asarray([1e-17, 1e-17, 0.2499, 0.2501, 0.7499, 1 - 2**-53, 1 - 2**-53])
    drawn = draw(probabilities.log(), rows, numbers, Truncation(1.0, 1.0, 0, 0.0))
    assert drawn.tolist() == [1, 0, 0, 2, 2, 3, 1]


def test_frequencies_follow_the_truncated_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -2.0]])
    sampling = Sampling(temperature=0.8, top_p=0.97)
    numbers = (np.arange(100_000) + 0.5) / 100_000
    drawn = draw(logits, np.zeros(100_000, np.int64), numbers, Truncation.of(sampling))
    weights = np.asarray(_naive(logits[0].double().numpy(), sampling))
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 1e5, weights / weights.sum(), atol=2e-5)


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    drawn = draw(logits, np.asarray([1, 0, 1]), np.asarray([0.9, 0.9, 0.1]), Truncation(0.0, 1.0, 0, 0.0))
    assert drawn.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("temperature", "value"), [(0.0, np.nan), (1.0, np.nan), (1.0, np.inf)])
def test_logits_that_are_no_numbers_are_an_error(temperature: float, value: float) -> None:
    logits = torch.tensor([[0.0, value, 0.0]])
    with pytest.raises(CheckpointError, match="not numbers"):
        draw(logits, np.zeros(1, np.int64), np.full(1, 0.5), Truncation(temperature, 1.0, 0, 0.0))

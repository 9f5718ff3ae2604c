from __future__ import annotations

import math

import pytest
import torch
from tests.logprobs.naive import naive_target_log_probs
from torch import Tensor

from stepcredit.logprobs import projection
from stepcredit.logprobs.projection import (
    LOGIT_TILE_BYTES,
    LogitTransform,
    default_chunk_size,
    target_log_probs,
)

TRANSFORMS = [
    LogitTransform(),
    LogitTransform(scale=0.25),
    LogitTransform(softcap=1.5),
    LogitTransform(scale=3.0, softcap=2.0),
]
WIDTH, VOCABULARY = 5, 17


def naive(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, transform: LogitTransform
) -> Tensor:
    logits = hidden.double() @ weight.double().T
    if bias is not None:
        logits = logits + bias.double()
    logits = logits * transform.scale
    if transform.softcap is not None:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    return naive_target_log_probs(logits, targets)


def inputs(
    rows: int, dtype: torch.dtype, *, bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(rows)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    targets = torch.randint(VOCABULARY, (rows,), generator=generator)
    upstream = torch.randn(rows, generator=generator, dtype=torch.float64)
    return (
        normal(rows, WIDTH),
        normal(VOCABULARY, WIDTH),
        targets,
        normal(VOCABULARY) if bias else None,
        upstream,
    )


def gradients(log_probs: Tensor, upstream: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(log_probs, parameters, upstream.to(log_probs.dtype)))


def test_one_position_by_hand() -> None:
    # logits (ln 1, ln 2, ln 5): probabilities 1/8, 2/8, 5/8.
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(2)], [math.log(5)]], requires_grad=True)
    log_probs = target_log_probs(hidden, weight, torch.tensor([1]))
    log_probs.sum().backward()
    assert log_probs.item() == pytest.approx(math.log(2 / 8))
    # d/d logit = onehot - p = (-1/8, 6/8, -5/8), and d/d weight is the same as hidden is 1.
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == pytest.approx([-1 / 8, 6 / 8, -5 / 8])
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx(6 / 8 * math.log(2) - 5 / 8 * math.log(5))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("chunk_size", [1, 2, 7, 11, 100, None])
@pytest.mark.parametrize("rows", [1, 11, 40])
def test_equals_whole_logits_in_float64(
    rows: int, chunk_size: int | None, transform: LogitTransform, bias: bool
) -> None:
    hidden, weight, targets, offset, upstream = inputs(rows, torch.float64, bias=bias)
    expected = naive(hidden, weight, targets, offset, transform)
    actual = target_log_probs(
        hidden, weight, targets, bias=offset, transform=transform, chunk_size=chunk_size
    )
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    parameters = [hidden, weight] + ([] if offset is None else [offset])
    for ours, theirs in zip(
        gradients(actual, upstream, parameters), gradients(expected, upstream, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_lower_precision_gives_float32_values_and_gradients_of_the_parameters_dtype(
    dtype: torch.dtype, tolerance: float
) -> None:
    hidden, weight, targets, bias, upstream = inputs(40, dtype, bias=True)
    assert bias is not None
    actual = target_log_probs(hidden, weight, targets, bias=bias, chunk_size=7)
    expected = naive(hidden, weight, targets, bias, LogitTransform())
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(
        gradients(actual, upstream, [hidden, weight, bias]),
        gradients(expected, upstream, [hidden, weight, bias]),
        strict=True,
    ):
        assert ours.dtype == dtype
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=tolerance)


def test_autocast_computes_in_its_dtype_and_keeps_float32_gradients() -> None:
    hidden, weight, targets, _, upstream = inputs(11, torch.float32, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = target_log_probs(hidden, weight, targets)
    in_bfloat16 = target_log_probs(hidden.bfloat16(), weight.bfloat16(), targets)
    torch.testing.assert_close(under_autocast, in_bfloat16, rtol=0, atol=0)
    assert [grad.dtype for grad in gradients(under_autocast, upstream, [hidden, weight])] == [
        torch.float32
    ] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_that_are_kept_are_those_that_are_computed_again(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(most_kept: int) -> tuple[list[int], list[torch.Tensor]]:
        monkeypatch.setattr(projection, "MOST_KEPT_LOGITS", most_kept)
        hidden, weight, targets, _, upstream = inputs(11, dtype, bias=False)
        kept: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            log_probs = target_log_probs(
                hidden, weight, targets, transform=LogitTransform(0.7, 2.0), chunk_size=3
            )
        return kept, [log_probs.detach(), *gradients(log_probs, upstream, [hidden, weight])]

    number = 11 * inputs(11, dtype, bias=False)[1].shape[0]
    kept, values = computed(number)
    not_kept, expected = computed(number - 1)
    assert sum(kept) == sum(not_kept) + number
    assert all(torch.equal(one, other) for one, other in zip(values, expected, strict=True))


def test_numeric_gradients() -> None:
    hidden, weight, targets, bias, _ = inputs(4, torch.float64, bias=True)
    assert bias is not None
    assert torch.autograd.gradcheck(
        lambda h, w, b: target_log_probs(
            h, w, targets, bias=b, transform=LogitTransform(0.7, 2.0), chunk_size=3
        ),
        (hidden, weight, bias),
    )


def test_frozen_weight_gets_no_gradient() -> None:
    hidden, weight, targets, _, _ = inputs(11, torch.float32, bias=False)
    weight.requires_grad_(False)
    target_log_probs(hidden, weight, targets).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_no_rows() -> None:
    hidden, weight, targets, _, upstream = inputs(0, torch.float32, bias=False)
    log_probs = target_log_probs(hidden, weight, targets)
    assert log_probs.shape == (0,)
    for grad in gradients(log_probs, upstream, [hidden, weight]):
        assert not grad.any()


def test_confident_logits_stay_finite() -> None:
    hidden = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], requires_grad=True)
    log_probs = target_log_probs(hidden, weight, torch.tensor([0, 0]))
    assert log_probs.tolist() == [0.0, -1000.0]
    for grad in gradients(log_probs, torch.ones(2), [hidden, weight]):
        assert grad.isfinite().all()


def test_the_default_chunk_is_bounded_by_bytes() -> None:
    assert default_chunk_size(49152) * 49152 * 4 <= LOGIT_TILE_BYTES["cpu"]
    assert default_chunk_size(128256, "cuda") >= 1000
    assert default_chunk_size(10**9) == 1


def test_a_chunk_must_hold_a_row() -> None:
    hidden, weight, targets, _, _ = inputs(2, torch.float32, bias=False)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        target_log_probs(hidden, weight, targets, chunk_size=0)


@pytest.mark.parametrize("chunk_size", [1, 2, 6])
def test_tokens_without_any_probability_are_left_out(chunk_size: int) -> None:
    """Also where a whole tile of the vocabulary has none."""
    hidden, weight, _, _, _ = inputs(3, torch.float64, bias=False)
    bias = torch.zeros(VOCABULARY, dtype=torch.float64)
    bias[6:] = float("-inf")
    targets = torch.tensor([0, 5, 3])
    log_probs = target_log_probs(hidden, weight, targets, bias=bias, chunk_size=chunk_size)
    expected = (hidden @ weight[:6].T).log_softmax(dim=1)[range(3), targets]
    torch.testing.assert_close(log_probs, expected)

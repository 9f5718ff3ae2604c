from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from stepcredit.logprobs.context_attention import context_attention, takes_context
from stepcredit.logprobs.segments import visible

WIDTH = 8


def inputs(heads: int, key_heads: int, queries: int, context: int, dtype: torch.dtype) -> list[Tensor]:
    source = torch.Generator().manual_seed(queries * 100 + context)
    sizes = ((heads, queries), (key_heads, context), (key_heads, context), *(2 * [(key_heads, queries)]))
    return [
        torch.randn(1, number, tokens, WIDTH, generator=source).to(dtype).requires_grad_()
        for number, tokens in sizes
    ]


def naive(tensors: list[Tensor], scaling: float) -> Tensor:
    """One head and one query at a time, in float64."""
    query, context_key, context_value, key, value = (tensor.double() for tensor in tensors)
    keys, values = torch.cat([context_key, key], dim=2)[0], torch.cat([context_value, value], dim=2)[0]
    groups = query.shape[1] // keys.shape[0]
    rows = []
    for head in range(query.shape[1]):
        for place, one in enumerate(query[0, head]):
            seen = context_key.shape[2] + place + 1
            weights = torch.softmax(scaling * (keys[head // groups, :seen] @ one), dim=0)
            rows.append(weights @ values[head // groups, :seen])
    return torch.stack(rows).view(query.shape)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
@pytest.mark.parametrize(
    ("heads", "key_heads", "queries", "context"), [(4, 2, 7, 5), (3, 3, 1, 9), (6, 1, 11, 1)]
)
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_values_and_gradients_are_those_of_the_naive_loop(
    heads: int,
    key_heads: int,
    queries: int,
    context: int,
    dtype: torch.dtype,
    tolerance: float,
    scaling: float | None,
) -> None:
    tensors = inputs(heads, key_heads, queries, context, dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    attended = context_attention(*tensors, scaling=scaling)
    expected = naive(exact, WIDTH**-0.5 if scaling is None else scaling)
    torch.testing.assert_close(attended.double(), expected, rtol=0, atol=tolerance)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
    gradients = torch.autograd.grad((attended.double() * weights).sum(), tensors)
    wanted = torch.autograd.grad((expected * weights).sum(), exact)
    for ours, theirs in zip(gradients, wanted, strict=True):
        assert ours.dtype == dtype
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * scale)


def test_nothing_of_the_size_of_a_mask_is_kept() -> None:
    def most_kept(attend: object) -> int:
        assert callable(attend)
        kept: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            attend()
        return max(kept)

    query, context_key, context_value, key, value = tensors = inputs(2, 1, 300, 100, torch.float32)
    keys, values = torch.cat([context_key, key], dim=2), torch.cat([context_value, value], dim=2)
    mask = visible(300, 100, None, query.device)
    assert most_kept(lambda: context_attention(*tensors)) == query.numel()
    assert (
        most_kept(
            lambda: functional.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, enable_gqa=True
            )
        )
        == mask.numel()
    )


def test_values_of_another_width_are_not_taken() -> None:
    query, _, _, key, value = inputs(2, 1, 3, 4, torch.float32)
    assert takes_context(query, value)
    assert not takes_context(query, value[..., :4])
    assert not takes_context(query.to("meta"), key)

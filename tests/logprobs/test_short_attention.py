from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from stepcredit.logprobs.segments import Segments, visible
from stepcredit.logprobs.short_attention import MOST_SCORES, is_short, short_attention


def naive(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """One head and one query at a time, in float64."""
    groups = query.shape[1] // key.shape[1]
    rows = []
    for head in range(query.shape[1]):
        keys, values = key[0, head // groups].double(), value[0, head // groups].double()
        for place, one in enumerate(query[0, head].double()):
            seen = mask[place]
            weights = torch.softmax(scaling * (keys[seen] @ one), dim=0)
            rows.append(weights @ values[seen])
    return torch.stack(rows).view(query.shape)


def tensors(
    heads: int, key_heads: int, queries: int, keys: int, width: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    shapes = [(1, heads, queries, width), (1, key_heads, keys, width), (1, key_heads, keys, width)]
    query, key, value = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


@pytest.mark.parametrize(
    ("heads", "key_heads", "queries", "keys", "window"),
    [(9, 3, 7, 7, None), (4, 4, 5, 12, None), (6, 2, 1, 9, None), (4, 1, 11, 11, 3), (3, 3, 1, 1, None)],
)
def test_values_and_gradients_are_those_of_the_naive_loop(
    heads: int, key_heads: int, queries: int, keys: int, window: int | None
) -> None:
    query, key, value = inputs = tensors(heads, key_heads, queries, keys)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    mask = visible(queries, keys - queries, window, query.device)
    segments = Segments((keys - queries, queries), ((), (0,))) if keys > queries else Segments((keys,), ((),))
    attended = short_attention(query, key, value, segments.hidden(len(segments.lengths) - 1, window, query))
    expected = naive(exact[0], exact[1], exact[2], mask, scaling=16**-0.5)
    torch.testing.assert_close(attended.double(), expected, rtol=0, atol=0.03)
    weights = torch.linspace(-1, 1, attended.numel()).view(attended.shape)
    gradients = torch.autograd.grad((attended.float() * weights).sum(), inputs)
    exact_gradients = torch.autograd.grad((expected * weights.double()).sum(), exact)
    for got, want in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=0.04 * max(1.0, want.abs().max().item()))


def test_it_is_as_exact_as_the_kernel_it_stands_for() -> None:
    query, key, value = tensors(4, 2, 40, 60)
    mask = visible(40, 20, None, query.device)
    exact = naive(query.double(), key.double(), value.double(), mask, scaling=16**-0.5)
    kernel = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    hidden = torch.zeros(40, 60, dtype=torch.bfloat16).masked_fill(~mask, -torch.inf)
    own = short_attention(query, key, value, hidden)
    kernel_error, own_error = ((tensor.double() - exact).abs().mean() for tensor in (kernel, own))
    assert own_error < 3 * kernel_error


def test_only_short_bfloat16_rows_on_a_cpu_take_this_way() -> None:
    query, key, _ = tensors(2, 2, 8, 8)
    assert is_short(query, key)
    assert not is_short(query.float(), key.float())
    assert not is_short(query.expand(2, -1, -1, -1), key)
    long = torch.empty(1, 2, MOST_SCORES, 1, dtype=torch.bfloat16)
    assert not is_short(long, key)

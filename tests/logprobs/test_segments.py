from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stepcredit.logprobs import segments
from stepcredit.logprobs.segments import Segments, segment_attention

LAYOUT = Segments((5, 9, 1, 12), ((), (0,), (0,), (0, 1)))
HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def naive(query: Tensor, key: Tensor, value: Tensor, window: int | None, softcap: float | None) -> Tensor:
    """Token by token: each attends to the tokens of its own sequence up to itself."""
    starts = [sum(LAYOUT.lengths[:index]) for index in range(len(LAYOUT.lengths))]
    rows = []
    for index, length in enumerate(LAYOUT.lengths):
        chain = (*LAYOUT.contexts[index], index)
        places = [starts[link] + offset for link in chain for offset in range(LAYOUT.lengths[link])]
        for offset in range(length):
            seen = places[: len(places) - length + offset + 1][-(window or len(places)) :]
            own_keys = key[0][:, seen].repeat_interleave(HEADS // KEY_HEADS, dim=0)
            own_values = value[0][:, seen].repeat_interleave(HEADS // KEY_HEADS, dim=0)
            scores = own_keys @ query[0, :, starts[index] + offset, :, None] / WIDTH**0.5
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            rows.append((scores.softmax(dim=1) * own_values).sum(dim=1))
    return torch.stack(rows)[None]


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize(
    ("most_masked", "most_shared", "queries"),
    [(1, 0, 256), (40, 0, 256), (2**22, 0, 3), (2**22, 40, 256), (2**22, 2**17, 256)],
)
def test_blocks_of_queries_attend_as_tokens_do(
    window: int | None,
    softcap: float | None,
    most_masked: int,
    most_shared: int,
    queries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "MOST_MASKED", most_masked)
    monkeypatch.setattr(segments, "MOST_SHARED", most_shared)
    monkeypatch.setattr(segments, "CPU_QUERIES", queries)
    source = torch.Generator().manual_seed(0)
    query, key, value = inputs = [
        torch.randn(
            (1, heads, sum(LAYOUT.lengths), WIDTH), dtype=torch.float64, generator=source, requires_grad=True
        )
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    attended, _ = segment_attention(
        nn.Module(), query, key, value, None, sliding_window=window, softcap=softcap, segments=LAYOUT
    )
    expected = naive(query, key, value, window, softcap)
    torch.testing.assert_close(attended, expected, rtol=0, atol=1e-12)
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=source)
    gradients = torch.autograd.grad((attended * weights).sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

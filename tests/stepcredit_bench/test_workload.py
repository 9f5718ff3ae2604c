from __future__ import annotations

import pytest
import torch

from stepcredit_bench.workload import (
    PROMPT_TOKENS,
    RESPONSE_TOKENS,
    SHAPES,
    never_ends,
    preference_pairs,
    random_model,
    response_groups,
)


def test_groups_share_their_prompt_and_nothing_else() -> None:
    groups = response_groups("tiny", num_groups=3, responses_per_group=5)
    assert [len(group) for group in groups] == [5, 5, 5]
    for group in groups:
        prompts = {item.token_ids[: item.scored_start] for item in group}
        assert len(prompts) == 1
        assert PROMPT_TOKENS[0] <= len(prompts.pop()) <= PROMPT_TOKENS[1]
        assert all(RESPONSE_TOKENS[0] <= item.num_scored <= RESPONSE_TOKENS[1] for item in group)
        assert len({item.token_ids for item in group}) == 5
    assert len({group[0].token_ids[:70] for group in groups}) == 3


def test_the_seed_decides_tokens_and_weights() -> None:
    assert preference_pairs("tiny", num_pairs=2) == preference_pairs("tiny", num_pairs=2)
    assert preference_pairs("tiny", num_pairs=2) != preference_pairs("tiny", num_pairs=2, seed=1)
    weights = [random_model("tiny", seed=seed).model.embed_tokens.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert random_model("tiny", seed=0, dtype="bfloat16").dtype == torch.bfloat16


def test_the_named_shape_is_smollm2() -> None:
    shape = SHAPES["smollm2-135m"]
    assert (shape["num_hidden_layers"], shape["hidden_size"], shape["vocab_size"]) == (30, 576, 49152)
    assert (shape["num_attention_heads"], shape["num_key_value_heads"]) == (9, 3)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "vocab_size"), [("tiny", 24), ("tiny", 512), ("smollm2-135m", 512)])
def test_a_model_that_never_ends_does_not(shape: str, vocab_size: int) -> None:
    model = never_ends(random_model(shape, seed=1, vocab_size=vocab_size), 2)
    tokens = torch.randint(3, vocab_size, (4, 64), generator=torch.Generator().manual_seed(0))
    assert model(tokens).logits.softmax(dim=-1)[..., 2].max() < 1e-6

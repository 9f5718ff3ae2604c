from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stepcredit.logprobs import enable_log_probs, enable_packing, pack, pad, token_log_probs
from stepcredit.types import Encoded
from stepcredit_bench.limit import (
    ProductsSide,
    Work,
    forward_operations,
    num_parameters,
    separate_work,
    shared_work,
    training_operations,
)
from stepcredit_bench.workload import random_model, response_groups


def test_a_prompt_and_equal_responses_are_counted_once() -> None:
    prompt = tuple(range(20))
    one, other = Encoded((*prompt, 30, 31, 32), 20), Encoded((*prompt, 40, 41), 20)
    assert shared_work([one, other, one]) == Work(
        tokens=25, scored=5, attended=20 * 21 // 2 + (3 * 20 + 6) + (2 * 20 + 3)
    )
    assert separate_work([one, other]) == Work(tokens=45, scored=5, attended=23 * 24 // 2 + 22 * 23 // 2)


def counted(sequences: list[Encoded], *, packed: bool, backward: bool) -> int:
    model = random_model("tiny", seed=0)
    enable_log_probs(model)
    assert not packed or enable_packing(model)
    batch = (pack if packed else pad)(sequences)
    with FlopCounterMode(display=False) as counter:
        log_probs = token_log_probs(model, batch)
        if backward:
            log_probs.sum().backward()
    by_module = counter.get_flop_counts()["Global"]
    # Attention over a causal mask computes what it then hides, in a number that the kernel decides.
    products = (torch.ops.aten.mm, torch.ops.aten.addmm)
    return sum(count for name, count in by_module.items() if name in products)


@pytest.mark.parametrize("packed", [False, True])
def test_operations_are_those_of_the_model(packed: bool) -> None:
    (group,) = response_groups("tiny", num_groups=1, responses_per_group=1 if not packed else 3)
    work = shared_work(group)
    without_attention = Work(tokens=work.tokens, scored=work.scored)
    assert counted(group, packed=packed, backward=False) == forward_operations("tiny", without_attention)
    assert counted(group, packed=packed, backward=True) == training_operations("tiny", without_attention)


def test_attention_counts_scores_and_averages() -> None:
    work = Work(attended=10)
    assert forward_operations("tiny", work) == 2 * 2 * 2 * 32 * 10


def test_parameters_are_those_of_the_model() -> None:
    model = random_model("tiny", seed=0)
    norms = 32 * (2 * 2 + 1)
    assert num_parameters("tiny") == sum(weight.numel() for weight in model.parameters()) - norms


@pytest.mark.parametrize("backward", [False, True])
def test_the_rates_are_measured(backward: bool) -> None:
    side = ProductsSide("tiny", rows=64, dtype="float32", backward=backward)
    side.load()
    side.warm_up()
    side.prepare()
    rates = side.run()
    assert 1e8 < rates["products_per_second"] < 1e14
    assert 1e7 < rates["bytes_per_second"] < 1e13

"""Two processes over gloo: parameters sharded by FSDP2, values and gradients as in one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from tests.logprobs.tiny_models import prompt_groups, tiny_model
from tests.processes import run_ranks
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from stepcredit.logprobs import enable_log_probs, enable_packing, pack, pad, token_log_probs
from stepcredit.logprobs.projection import target_log_probs

RANKS = 2
SEQUENCES = prompt_groups()
SHARES = (SEQUENCES[0::2], SEQUENCES[1::2])


def _loss(log_probs: Tensor) -> Tensor:
    return (log_probs * torch.linspace(-1, 2, len(log_probs), dtype=log_probs.dtype)).sum()


def _whole_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gradients of the mean of the ranks' losses, in one process."""
    for share in SHARES:
        (_loss(token_log_probs(model, pad(share))) / RANKS).backward()
    return {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def _check_model(rank: int, mesh: DeviceMesh, *, tied: bool, packed: bool, head_alone: bool) -> None:
    model: Any = tiny_model("llama-tied" if tied else "llama", dtype=torch.float64)
    expected = _whole_gradients(copy.deepcopy(model))
    enable_log_probs(model)
    if packed:
        assert enable_packing(model)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    if head_alone:
        fully_shard(model.lm_head, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), name
        assert parameter.placements == (Shard(0),), name
        assert parameter.to_local().numel() < parameter.numel(), name
    batch = pack(SHARES[rank]) if packed else pad(SHARES[rank])
    _loss(token_log_probs(model, batch)).backward()
    for name, parameter in model.named_parameters():
        assert isinstance(parameter.grad, DTensor), name
        whole = parameter.grad.full_tensor()
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(whole, expected[name], rtol=0, atol=1e-6 * scale, msg=name)


def _check_projection(rank: int, mesh: DeviceMesh) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(11, generator=generator, dtype=torch.float64)
    hidden = torch.randn(RANKS, 5, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(11, (RANKS, 5), generator=generator)
    whole = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    losses = [_loss(target_log_probs(hidden[r], whole[0], targets[r], bias=whole[1])) for r in range(RANKS)]
    (sum(losses) / RANKS).backward()  # type: ignore[union-attr]
    sharded = [distribute_tensor(tensor, mesh, [Shard(0)]).requires_grad_() for tensor in (weight, bias)]
    loss = _loss(target_log_probs(hidden[rank], sharded[0], targets[rank], bias=sharded[1], chunk_size=2))
    torch.testing.assert_close(loss, losses[rank].detach())
    loss.backward()
    for ours, theirs in zip(sharded, whole, strict=True):
        assert isinstance(ours.grad, DTensor)
        assert ours.grad.placements == (Shard(0),)
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad)


CHECKS: dict[str, Callable[[int, DeviceMesh], None]] = {
    "projection": _check_projection,
    "tied": lambda rank, mesh: _check_model(rank, mesh, tied=True, packed=False, head_alone=False),
    "untied": lambda rank, mesh: _check_model(rank, mesh, tied=False, packed=False, head_alone=False),
    "tied-packed": lambda rank, mesh: _check_model(rank, mesh, tied=True, packed=True, head_alone=False),
    "head-alone": lambda rank, mesh: _check_model(rank, mesh, tied=False, packed=False, head_alone=True),
}


def _work(results: Path) -> None:
    distributed.init_process_group("gloo")
    rank, mesh = distributed.get_rank(), init_device_mesh("cpu", (RANKS,))
    for name, check in CHECKS.items():
        check(rank, mesh)
        if rank == 0:
            (results / name).touch()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the checks that both processes passed."""
    folder = tmp_path_factory.mktemp("checks")
    results = folder / "passed"
    results.mkdir()
    run_ranks(partial(_work, results), folder / "log")
    return {path.name for path in results.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("check", list(CHECKS))
def test_sharded_parameters_give_the_gradients_of_one_process(passed: set[str], check: str) -> None:
    assert check in passed

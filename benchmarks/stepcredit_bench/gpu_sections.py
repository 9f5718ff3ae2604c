"""Sections of ``benchmarks/gpu.py``: what is checked and timed on a GPU, or at a tiny size on the CPU."""

from __future__ import annotations

import contextlib
import copy
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepcredit.logprobs import LocalTokenLogProbs, enable_log_probs, enable_packing, pack, token_log_probs
from stepcredit.logprobs.growing import growing
from stepcredit.logprobs.segments import Segments, segment_attention
from stepcredit.types import Encoded
from stepcredit_bench import sampling, scoring, training
from stepcredit_bench.limit import forward_operations, shared_work, training_operations
from stepcredit_bench.training_work import TrainWork
from stepcredit_bench.workload import SHAPES, random_model, response_groups

EQUALITY_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.25}
"""Nats per token from the CPU in float64."""


@dataclass(frozen=True)
class Settings:
    """Where and how large.

    Attributes:
        device: Type of the device.
        shape: Of the models that are timed; name in :data:`~stepcredit_bench.workload.SHAPES`.
    """

    device: str
    shape: str

    @property
    def is_small(self) -> bool:
        """Whether this only shows that everything runs."""
        return self.shape == "tiny"


def machine(settings: Settings) -> dict[str, Any]:
    """Versions, and the rate of bfloat16 products: large square ones, and those of the model."""
    versions = {}
    for name in ("torch", "transformers", "trl", "peft", "accelerate"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    on_gpu = settings.device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "cpu",
        "python": platform.python_version(),
        "versions": versions,
        "square_products_per_second": _rate(settings, *(3 * (64 if settings.is_small else 8192,))),
        "products_per_second": _model_rate(settings),
    }


def _rate(settings: Settings, rows: int, inputs: int, outputs: int) -> float:
    states = torch.randn(rows, inputs, device=settings.device, dtype=torch.bfloat16)
    weight = torch.randn(outputs, inputs, device=settings.device, dtype=torch.bfloat16)
    repeats = 2 if settings.is_small else 20
    for _ in range(3):
        states @ weight.T
    _wait(settings)
    start = time.perf_counter()
    for _ in range(repeats):
        states @ weight.T
    _wait(settings)
    return 2.0 * rows * inputs * outputs * repeats / (time.perf_counter() - start)


def _model_rate(settings: Settings) -> float:
    """Operations per second of a layer's two largest products, at the positions of a forward pass."""
    sizes = SHAPES[settings.shape]
    rows = 64 if settings.is_small else 16384
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    wide, narrow = _rate(settings, rows, width, inner), _rate(settings, rows, inner, width)
    return 3.0 / (2.0 / wide + 1.0 / narrow)


def equality(settings: Settings) -> dict[str, Any]:
    """Log-probabilities and gradients by every path, beside one sequence at a time on the CPU in float64."""
    groups = response_groups("tiny", num_groups=2, responses_per_group=3)
    sequences = [item for group in groups for item in group]
    exact = random_model("tiny", seed=1).double()
    expected = LocalTokenLogProbs(exact, weights_hash="", token_budget=1, share_prefixes=False).of(sequences)
    outcome: dict[str, Any] = {}
    for dtype, tolerance in EQUALITY_TOLERANCE.items():
        model = random_model("tiny", seed=1).to(settings.device, getattr(torch, dtype))
        differences = {}
        for name, values in _paths(model, sequences):
            pairs = zip(values, expected, strict=True)
            differences[name] = max(float(abs(ours - theirs).max()) for ours, theirs in pairs)
        outcome[dtype] = differences
        _require(max(differences.values()) <= tolerance, f"{dtype}: {differences}")
    outcome["gradient"] = _gradient_difference(exact, settings, sequences)
    _require(outcome["gradient"] <= 1e-3, f"gradient differs by {outcome['gradient']}")
    return outcome


def _paths(model: Any, sequences: Sequence[Encoded]) -> Iterator[tuple[str, Any]]:
    yield "padded", LocalTokenLogProbs(model, weights_hash="", share_prefixes=False).of(sequences)
    yield "packed", LocalTokenLogProbs(model, weights_hash="").of(sequences)
    yield "small passes", LocalTokenLogProbs(model, weights_hash="", token_budget=400).of(sequences)
    yield "state kept", growing(LocalTokenLogProbs(model, weights_hash="")).of(sequences)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        return
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, init_lora_weights=False))
    yield "adapter off", LocalTokenLogProbs(adapted, weights_hash="", adapter_off=True).of(sequences)


def _gradient_difference(exact: Any, settings: Settings, sequences: Sequence[Encoded]) -> float:
    """Largest difference of a gradient in float32, packed, as a share of that weight's largest gradient."""
    model = random_model("tiny", seed=1).to(settings.device)
    for own in (exact, model):
        enable_packing(own)
        own.zero_grad()
        token_log_probs(own, pack(sequences).to(next(own.parameters()).device)).sum().backward()
    pairs = zip(model.parameters(), exact.parameters(), strict=True)
    return max(
        float((ours.grad.cpu().double() - theirs.grad).abs().max() / theirs.grad.abs().max())
        for ours, theirs in pairs
    )


def attention(settings: Settings) -> dict[str, Any]:
    """A group that shares its prompt: segments one by one, and flex_attention; on a GPU backward too."""
    group = response_groups(settings.shape, num_groups=1, responses_per_group=3 if settings.is_small else 64)
    layout = pack(group[0]).segments
    assert layout is not None
    sizes = SHAPES[settings.shape]
    heads, key_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    dtype = torch.float32 if settings.is_small else torch.bfloat16
    backward = settings.device == "cuda"  # flex_attention has none on a CPU
    query, key, value = inputs = [
        torch.randn(
            (1, number, sum(layout.lengths), 64), device=settings.device, dtype=dtype, requires_grad=backward
        )
        for number in (heads, key_heads, key_heads)
    ]
    ways: dict[str, Callable[[], Tensor]] = {
        "segments": lambda: segment_attention(nn.Module(), query, key, value, None, segments=layout)[0],
        "flex": _flex(inputs, layout, compiles=settings.device == "cuda"),
    }
    outcome: dict[str, Any] = {"tokens": sum(layout.lengths)}
    results = {}
    for name, attend in ways.items():
        with torch.set_grad_enabled(backward):
            attended = _attend(attend, backward=backward)  # compiles
            _wait(settings)
            start = time.perf_counter()
            for _ in range(3):
                attended = _attend(attend, backward=backward)
            _wait(settings)
        outcome[f"{name}_seconds"] = (time.perf_counter() - start) / 3
        results[name] = attended.detach().float()
    outcome["difference"] = float((results["segments"] - results["flex"]).abs().max())
    _require(outcome["difference"] <= (1e-5 if settings.is_small else 0.05), f"{outcome}")
    return outcome


def _attend(attend: Callable[[], Tensor], *, backward: bool) -> Tensor:
    attended = attend()
    if backward:
        attended.sum().backward()
    return attended


def _flex(inputs: Sequence[Tensor], layout: Segments, *, compiles: bool) -> Callable[[], Tensor]:
    """The same layout as a block mask: a token sees its own segment and those that it continues."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    device, total = inputs[0].device, sum(layout.lengths)
    segment = torch.repeat_interleave(torch.tensor(layout.lengths)).to(device)
    continues = torch.eye(len(layout.lengths), dtype=torch.bool)
    for index, context in enumerate(layout.contexts):
        continues[index, list(context)] = True
    continues = continues.to(device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        return continues[segment[query], segment[key]] & (key <= query)

    mask = create_block_mask(sees, None, None, total, total, device=device)
    attend: Any = torch.compile(flex_attention) if compiles else flex_attention
    return lambda: attend(*inputs, block_mask=mask, enable_gqa=True).transpose(1, 2)


def fsdp2(settings: Settings) -> dict[str, Any]:
    """One device's shard is the whole model: values and gradients as without sharding."""
    import torch.distributed as distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    sequences = response_groups("tiny", num_groups=1, responses_per_group=3)[0]
    plain = random_model("tiny", seed=1).to(settings.device)
    sharded: Any = copy.deepcopy(plain)
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if settings.device == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            mesh = init_device_mesh(settings.device, (1,))
            enable_log_probs(sharded)
            for layer in sharded.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(sharded, mesh=mesh)
            for model in (plain, sharded):
                enable_packing(model)
                token_log_probs(model, pack(sequences).to(settings.device)).sum().backward()
            differences = []
            for ours, theirs in zip(sharded.parameters(), plain.parameters(), strict=True):
                assert isinstance(ours.grad, DTensor)
                differences.append(float((ours.grad.full_tensor() - theirs.grad).abs().max()))
        finally:
            distributed.destroy_process_group()
    _require(max(differences) <= 1e-2, f"gradients differ by {max(differences)}")
    return {"largest_gradient_difference": max(differences)}


def score(settings: Settings) -> dict[str, Any]:
    """Step rewards of groups that share a prompt, beside the published way."""
    small = settings.is_small
    work = scoring.ScoreWork(
        shape=settings.shape, num_groups=1 if small else 4, responses_per_group=3 if small else 64
    )
    operations = 2 * forward_operations(settings.shape, shared_work(work.sequences()))
    sides = {"ours": scoring.OurSide, "published": scoring.PublishedSide}
    outcome = {}
    for name, side_class in sides.items():
        side = side_class(work, "float32" if small else "bfloat16")
        side.device = settings.device
        outcome[name] = _timed(side, settings, operations)
    log_ratios = [torch.tensor(outcome[name].pop("log_ratios")) for name in sides]
    return outcome | {"largest_difference": float((log_ratios[0] - log_ratios[1]).abs().max())}


def train(settings: Settings) -> dict[str, Any]:
    """DPO on independent pairs, beside TRL's trainer and a plain loop."""
    small = settings.is_small
    work = TrainWork(
        shape=settings.shape,
        steps=2 if small else 4,
        batch_size=2 if small else 16,
        responses=2,
        tokens_per_forward=16384,
        precision="float32" if small else "bfloat16",
    )
    sequences = [example.encoded for example in work.data.examples]
    operations = training_operations(settings.shape, shared_work(sequences))
    sides: dict[str, Any] = {
        "ours": training.OurSide,
        "trl": training.TrlSide,
        "plain": training.PlainSide,
    }
    outcome: dict[str, Any] = {}
    for name, side_class in sides.items():
        try:
            side = side_class(work)
            side.device = settings.device
            outcome[name] = _timed(side, settings, operations)
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            if name == "ours":
                raise
            outcome[name] = {"failed": last_line(error)}
    return outcome


def sample(settings: Settings) -> dict[str, Any]:
    """Samples of a few prompts, beside ``transformers.generate``."""
    small = settings.is_small
    dtype = "float32" if small else "bfloat16"
    with tempfile.TemporaryDirectory() as folder:
        sampling.write_policy(Path(folder), settings.shape, seed=1, dtype=dtype, device=settings.device)
        work = sampling.SampleWork(
            model=folder,
            shape=settings.shape,
            num_prompts=2 if small else 8,
            samples=3 if small else 64,
            max_new_tokens=4 if small else 128,
            dtype=dtype,
            device=settings.device,
        )
        sides = {"ours": sampling.OurSide, "generate": sampling.GenerateSide}
        operations = work.operations()
        return {name: _timed(side(work), settings, operations) for name, side in sides.items()}


def _timed(side: Any, settings: Settings, operations: float) -> dict[str, Any]:
    """One turn of a side: seconds, operations per second, peak memory, and its own outcome."""
    on_gpu = settings.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    side.load()
    side.warm_up()
    side.prepare()
    _wait(settings)
    start = time.perf_counter()
    outcome: dict[str, Any] = side.run()
    _wait(settings)
    seconds = time.perf_counter() - start
    memory = {"peak_mb": torch.cuda.max_memory_allocated() / 2**20} if on_gpu else {}
    return {"seconds": seconds, "operations_per_second": operations / seconds, **memory, **outcome}


def _wait(settings: Settings) -> None:
    if settings.device == "cuda":
        torch.cuda.synchronize()


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def last_line(error: BaseException) -> str:
    """Type and end of an error's message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


SECTIONS: Mapping[str, tuple[Callable[[Settings], dict[str, Any]], int]] = {
    "machine": (machine, 30),
    "equality": (equality, 60),
    "attention": (attention, 60),
    "fsdp2": (fsdp2, 30),
    "score": (score, 70),
    "train": (train, 120),
    "sample": (sample, 90),
}
"""What runs, and the seconds within which it must end."""

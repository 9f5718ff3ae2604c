"""What a run would take, before an expensive hour is spent: steps, tokens, operations, memory, time.

Imports nothing heavy, so that ``--help`` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from stepcredit.errors import UserError
from stepcredit.options import option
from stepcredit.training.config import TrainConfig
from stepcredit.training.counts import left_out
from stepcredit.wording import quantity

OPERATIONS_FORMULA = (
    "training 6 x parameters x tokens (4 with LoRA, whose base gets no weight gradients; 2 more where "
    "activations are recomputed); passes of the reference and over mismatched responses 2; attention's "
    "quadratic term is left out"
)
MEMORY_FORMULA = (
    "weights, gradients and Adam's moments in float32 (16 bytes per parameter, divided among the devices as "
    "FSDP2 does; 4 bytes with LoRA, 2 in bfloat16, undivided), activations of a forward pass of 34 bytes "
    "per token, layer and unit of width (2 where they are recomputed, and one layer whole), 32 MiB of "
    "logits; or, if that is more, the whole weights, which every device holds before they are sharded; and "
    "a live reference, 4 bytes per parameter"
)
_LOGIT_PIECE = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """For a dry run: the machine, and the sizes of the model and data if they are not available."""

    dry_run: bool = option(
        "print what the run would need, and do nothing; weights are not loaded", default=False
    )
    devices: int = option("dry run: number of accelerators", default=1)
    device_memory: float | None = option("dry run: memory of each accelerator, in GiB", default=None)
    device_flops: float = option(
        "dry run: peak operations per second of each accelerator (989e12: H100, bfloat16)", default=989e12
    )
    utilisation: float = option("dry run: share of the peak that training reaches", default=0.4)
    model_parameters: float | None = option(
        "dry run: number of parameters; default is the model's", default=None
    )
    model_layers: int | None = option("dry run: number of layers; default is the model's", default=None)
    model_width: int | None = option("dry run: hidden width; default is the model's", default=None)
    examples: int | None = option(
        "dry run: number of responses; default is counted in the data", default=None
    )
    mean_tokens: float | None = option(
        "dry run: mean number of tokens of prompt and response; default is counted in the data", default=None
    )

    def __post_init__(self) -> None:
        for name in ("devices", "device_flops", "utilisation"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"must be above 0, got {getattr(self, name)}", where="--" + name.replace("_", "-")
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of a model."""

    parameters: float
    layers: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Size of the data.

    Attributes:
        examples: Responses.
        units: Responses, or pairs for paired objectives, in an epoch.
        unit_tokens: Tokens of all units of an epoch.
        example_tokens: Tokens of all responses, each once.
        mismatched: Whether a pass over mismatched responses is needed in every step.
        from_data: Whether it was counted rather than assumed.
        counts: What came in, what was left out and why.
    """

    examples: int
    units: int
    unit_tokens: float
    example_tokens: float
    mismatched: bool = False
    from_data: bool = False
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would take.

    Attributes:
        examples: Responses trained on.
        units: Units of an epoch.
        tokens: Tokens passed forward and backward.
        training_flops: Operations of the steps, mismatched passes included.
        reference_flops: Operations of the reference pass before training.
        device_memory_gib: Memory a device needs, as :data:`MEMORY_FORMULA` has it.
        fits: Whether the device has it; ``None`` where its memory is not given.
        hours: Wall time at the stated utilisation.
        assumptions: The formulas, the machine, and whether the data were counted.
    """

    examples: int
    units: int
    steps: int
    tokens: int
    training_flops: float
    reference_flops: float
    device_memory_gib: float
    fits: bool | None
    hours: float
    counts: dict[str, int]
    assumptions: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    def to_text(self) -> str:
        """A table for a person."""
        machine = self.assumptions
        room = "" if self.fits is None else (", fits" if self.fits else ", does NOT fit")
        lines = [
            f"{quantity(self.examples, 'example')} ({'counted' if machine['data_counted'] else 'assumed'}), "
            f"{quantity(self.units, 'unit')} per epoch",
            f"{quantity(self.steps, 'step')}, {quantity(self.tokens, 'token')}",
            f"{self.training_flops:.3g} operations to train, {self.reference_flops:.3g} for the reference",
            f"{self.device_memory_gib:.1f} GiB per device on {quantity(machine['devices'], 'device')}{room}",
            f"{self.hours:.2g} hours at {machine['utilisation']:.0%} of {machine['device_flops']:.3g} "
            "operations per second each",
        ]
        lines += [f"left out: {words}" for words in left_out(self.counts)]
        return "\n".join(lines)


def make_plan(
    config: TrainConfig, options: PlanOptions, shape: Shape, work: Workload, *, tokens_per_forward: int
) -> Plan:
    """Work out a run's cost.

    Args:
        tokens_per_forward: Most tokens of one forward pass on a device.
    """
    steps = max(1, math.ceil(config.epochs * math.ceil(work.units / config.batch_size)))
    tokens = work.unit_tokens * config.epochs
    factor = (4 if config.lora_rank else 6) + (2 if config.gradient_checkpointing else 0)
    training = factor * shape.parameters * tokens
    if work.mismatched:
        training += 2 * shape.parameters * tokens
    reference = 0.0
    if config.has_reference:
        reference = 2 * shape.parameters * work.example_tokens * (2 if work.mismatched else 1)
        if config.live_reference:
            reference = 2 * shape.parameters * tokens * (2 if work.mismatched else 1)
    memory = _device_memory(config, options, shape, tokens_per_forward) / 2**30
    seconds = (training + reference) / (options.devices * options.device_flops * options.utilisation)
    return Plan(
        examples=work.examples,
        units=work.units,
        steps=steps,
        tokens=round(tokens),
        training_flops=training,
        reference_flops=reference,
        device_memory_gib=memory,
        fits=None if options.device_memory is None else memory <= options.device_memory,
        hours=seconds / 3600,
        counts=work.counts,
        assumptions={
            "operations": OPERATIONS_FORMULA,
            "memory": MEMORY_FORMULA,
            "devices": options.devices,
            "device_flops": options.device_flops,
            "utilisation": options.utilisation,
            "tokens_per_forward": tokens_per_forward,
            "data_counted": work.from_data,
            **asdict(shape),
        },
    )


def _device_memory(config: TrainConfig, options: PlanOptions, shape: Shape, tokens_per_forward: int) -> float:
    whole = shape.parameters * (2 if config.lora_rank and config.precision == "bfloat16" else 4)
    states = whole if config.lora_rank else 16 * shape.parameters / options.devices
    whole_layer = 34.0 * tokens_per_forward * shape.width
    if config.gradient_checkpointing:
        activations = 2.0 * tokens_per_forward * shape.width * shape.layers + whole_layer
    else:
        activations = whole_layer * shape.layers
    if config.precision == "float32":
        activations *= 2
    live_reference = 4 * shape.parameters if config.live_reference and not config.lora_rank else 0
    return max(whole, states + activations + _LOGIT_PIECE) + live_reference

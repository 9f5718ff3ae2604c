"""The size of a run's model and data: read where they are at hand, else as the user states them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stepcredit.checkpoints import LoadOptions, load_config, pick_device, resolve
from stepcredit.data import read_rollouts
from stepcredit.errors import CheckpointError, UserError
from stepcredit.objectives import get_objective
from stepcredit.runs import warn
from stepcredit.training.config import TrainConfig
from stepcredit.training.inputs import read_inputs
from stepcredit.training.plan import Plan, PlanOptions, Shape, Workload, make_plan


def plan_run(
    graded: Path, model: str, config: TrainConfig, options: PlanOptions, load: LoadOptions, seed: int
) -> Plan:
    """What training would take; weights are not read.

    Raises:
        UserError: Neither the model nor its size is known, or neither the data nor their size.
    """
    device_type = "cuda" if options.devices > 1 else pick_device(load.device).partition(":")[0]
    shape = model_shape(model, options, load)
    try:
        work = workload(graded, model, config, options, load, seed)
        return make_plan(config, options, shape, work, tokens_per_forward=config.token_budget(device_type))
    except OverflowError as error:
        raise UserError(
            "the number of operations of this run is too large to represent",
            hint="check epochs, the size of the model, and the number and length of the examples",
        ) from error


def model_shape(model: str, options: PlanOptions, load: LoadOptions) -> Shape:
    """From what is stated, else from the model's configuration, built without memory."""
    if options.model_parameters and options.model_layers and options.model_width:
        return Shape(
            parameters=options.model_parameters, layers=options.model_layers, width=options.model_width
        )
    import transformers

    try:
        settings = load_config(model, load)
    except CheckpointError as error:
        raise UserError(
            f"the size of {model} is not known ({error.problem})",
            hint="pass --model-parameters, --model-layers and --model-width",
        ) from error
    with torch.device("meta"):
        network: Any = transformers.AutoModelForCausalLM.from_config(
            settings, trust_remote_code=load.trust_remote_code
        )
    text = settings.get_text_config()
    return Shape(
        parameters=options.model_parameters or network.num_parameters(),
        layers=options.model_layers or text.num_hidden_layers,
        width=options.model_width or text.hidden_size,
    )


def workload(
    graded: Path, model: str, config: TrainConfig, options: PlanOptions, load: LoadOptions, seed: int
) -> Workload:
    """Counted from the file with the model's tokenizer, else as stated."""
    objective = get_objective(config.objective)
    if not graded.exists():
        if options.examples is None or options.mean_tokens is None:
            raise UserError(
                "there is no such file",
                where=graded,
                hint="check the path, or state --examples and --mean-tokens for the dry run",
            )
        warn(f"{graded}: there is no such file; the stated sizes are used")
        tokens = options.examples * options.mean_tokens
        units, unit_tokens = options.examples, tokens
        if objective.paired:
            # The most that the limit allows, for prompts with eight responses.
            units = options.examples // 8 * min(config.pairs_per_prompt, 16)
            unit_tokens = 2 * units * options.mean_tokens
        return Workload(
            examples=options.examples,
            units=units,
            unit_tokens=unit_tokens,
            example_tokens=tokens,
            mismatched=objective.needs_mismatched,
        )
    path = resolve(model, revision=load.revision, also=load.unsafe_patterns, weights=False)
    data = read_inputs(read_rollouts(graded), (), path, config, load, seed=seed).data
    lengths = [len(example.encoded.token_ids) for example in data.examples]
    return Workload(
        examples=len(data.examples),
        units=len(data.units),
        unit_tokens=data.epoch_tokens,
        example_tokens=sum(lengths),
        mismatched=objective.needs_mismatched,
        from_data=True,
        counts=data.counts,
    )

"""What a step in bfloat16 casts: each weight once, and no input of an adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import nn


@contextlib.contextmanager
def cast_once(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Keep the weights that autocast casts until the step ends; each pass would cast them anew.

    Not for sharded weights, which would stay whole for as long.

    Args:
        accelerator: Trains in bfloat16.
        model: The policy, not wrapped; with or without an adapter.
    """
    with contextlib.ExitStack() as stack:
        if hasattr(model, "peft_config"):
            from peft.helpers import disable_input_dtype_casting

            # Adapters would cast inputs to their own float32, and autocast casts them back.
            stack.enter_context(disable_input_dtype_casting(model))
        # Autocast forgets its casts when the outermost context ends; the model's own lies inside.
        stack.enter_context(accelerator.autocast())
        stack.enter_context(torch.autocast(accelerator.device.type, enabled=False))
        yield

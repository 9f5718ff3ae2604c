"""A loss that is not finite stops the run before it spoils the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stepcredit.errors import UserError


def check_finite(losses: Tensor, ids: Sequence[str]) -> None:
    """Stop where a loss is not a finite number.

    Args:
        losses: One per unit.
        ids: The rollouts of the units, each unit's after another.

    Raises:
        UserError: It names the rollouts.
    """
    finite = torch.isfinite(losses)
    if bool(finite.all()):
        return
    per_loss = len(ids) // len(losses)
    bad = [index for index, fine in enumerate(finite.tolist()) if not fine]
    names = [ids[index * per_loss + offset] for index in bad for offset in range(per_loss)]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise UserError(
        f"the loss is not a finite number for {shown}; training stopped, the last checkpoint is kept",
        hint="lower --learning-rate or --beta, or leave these rollouts out",
    )

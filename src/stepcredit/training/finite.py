"""A loss that is not finite stops the run before it spoils the weights; held-out rewards, when it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stepcredit.errors import UserError

_STOPPED = "; training stopped, the last checkpoint is kept"


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
        f"the loss is not a finite number for {shown}{_STOPPED}",
        hint="lower --learning-rate or --beta, or leave these rollouts out",
    )


def check_heldout_finite(rewards: Float[np.ndarray, " responses"]) -> None:
    """Stop where the weights give a held-out response a reward that is not a finite number.

    Raises:
        UserError: One is none.
    """
    if not np.isfinite(rewards).all():
        raise UserError(
            f"the held-out rewards are not finite numbers{_STOPPED}",
            hint="lower --learning-rate or --beta",
        )

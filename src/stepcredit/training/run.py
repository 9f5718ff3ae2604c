"""Training from rollouts to a model: encode, load, reference pass, train, keep the best."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import transformers

from stepcredit.checkpoints import LoadOptions
from stepcredit.training.config import TrainConfig
from stepcredit.training.fitting import TrainedModel, fit
from stepcredit.training.inputs import read_inputs
from stepcredit.training.models import load_models
from stepcredit.training.session import Session
from stepcredit.training.sharding import prepare_launch
from stepcredit.training.sources import Sources
from stepcredit.types import Rollout


def train_prm(
    rollouts: Iterable[Rollout],
    *,
    sources: Sources,
    config: TrainConfig,
    work: str | Path,
    heldout: Iterable[Rollout] = (),
    load: LoadOptions | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
) -> TrainedModel:
    """Train a reward model; goes on from the last checkpoint in ``work`` if there is one.

    Args:
        rollouts: Graded responses (with step labels for step objectives).
        work: Directory for checkpoints and the log; its owner removes it.
        heldout: Graded responses for held-out metrics and the choice of weights.
        cache: Directory of a cache of log-probabilities, shared by runs and commands.
        seed: Seed of data order, pairs, adapters and dropout.

    Raises:
        UserError: Data, models or processes cannot be used as asked; or the loss is not finite.
    """
    load = load or LoadOptions()
    prepare_launch(config.precision)
    transformers.set_seed(seed)
    inputs = read_inputs(rollouts, heldout, sources.model.path, config, load, seed=seed)
    session = Session.begin(inputs, config, Path(work), load, seed=seed)
    models = load_models(inputs, sources, config, load, session, cache=cache)
    return fit(inputs, models, config, session)

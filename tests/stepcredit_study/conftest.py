"""Tiny models, and a tiny lab that the experiments' tests share: what one test makes the others find."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.checkpoints import PRMCard, Reference, weights_hash
from stepcredit.lab.policies import policy_path
from stepcredit.pipelines.driver import Store
from stepcredit_study.frame.scale import Scale, Sizes, read_scale
from stepcredit_study.frame.world import World

SIZES = Sizes(
    train_prompts=12, train_responses=4, dev_prompts=4, test_prompts=4, test_responses=8, completions=2
)
_SHORT = {"epochs": 1, "batch_size": 16}
"""Few steps, but enough for a model to leave its reference."""


@pytest.fixture(scope="session")
def small_model(
    tmp_path_factory: pytest.TempPathFactory,
    make_model: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
) -> Path:
    """A tiny random model that can hold a word problem and its solution."""
    folder = tmp_path_factory.mktemp("model")
    make_model(max_position_embeddings=2048).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def strong_prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's strong policy as reward model, the mid one as its reference."""
    folder = tmp_path_factory.mktemp("strong") / "prm"
    shutil.copytree(policy_path("strong"), folder)
    reference = Reference.local(policy_path("mid"), folder, weights_hash(policy_path("mid")))
    PRMCard(beta=0.5, step_rule="newline", reference=reference).write(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_scale() -> Scale:
    """The lab's recipe at sizes that run in seconds, with two generators."""
    scale = replace(read_scale("lab"), sizes=SIZES)
    generators = {name: scale.generators[name] for name in ("weak", "mid")}
    return replace(scale, n=(2, 4), generators=generators, training={**scale.training, **_SHORT})


@pytest.fixture(scope="session")
def tiny_world(tiny_scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One seed of it; processes that run tests side by side share its folder, as a store allows."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all of this session's processes
    return World(tiny_scale, Store(folder / "tiny-world"), seed=0)

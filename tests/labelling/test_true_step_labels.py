"""Step models are strong where their labels are true: the baselines' ceiling on the lab."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.evaluation.labelled_steps import join_labels
from stepcredit.evaluation.localisation import localise
from stepcredit.evaluation.score_columns import read_score_columns
from stepcredit.generators.options import GeneratorOptions
from stepcredit.lab.files import cut_at_first_wrong, with_true_labels, write_prompts
from stepcredit.lab.policies import policy_path
from stepcredit.lab.tutor import MID
from stepcredit.pipelines import sample, score, train
from stepcredit.pipelines.demo import LabSampling
from stepcredit.stats import ProblemBootstrap
from stepcredit.training.config import TrainConfig
from stepcredit.types import Rollout

pytestmark = pytest.mark.long


def _write(path: Path, rollouts: Iterable[Rollout]) -> Path:
    write_rows(path, map(rollout_to_json, rollouts))
    return path


@pytest.fixture(scope="module")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different responses of the mid tutor to 1000 problems."""
    distinct: dict[tuple[str, str], Rollout] = {}
    for rollout in tutor_rollouts(MID, 1000, 2):
        labelled = cut_at_first_wrong(with_true_labels(rollout))
        distinct.setdefault((rollout.prompt_id, rollout.response), labelled)
    return _write(tmp_path_factory.mktemp("train") / "labelled.jsonl", distinct.values())


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Responses of the mid policy to problems that nothing was trained on, drawn as the demo draws them."""
    directory = tmp_path_factory.mktemp("test")
    write_prompts(directory / "prompts.jsonl", "test", seed=0, count=100)
    sample.run(
        sample.Options(
            prompts=directory / "prompts.jsonl",
            out=directory / "rollouts.jsonl",
            num_samples=8,
            seed=0,
            policy=GeneratorOptions(model=str(policy_path("mid"))),
            draw=LabSampling().options(training=False),
        )
    )
    drawn = read_rollouts(directory / "rollouts.jsonl")
    return _write(directory / "labelled.jsonl", map(with_true_labels, drawn))


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "implicit", "beta": 0.5, "epochs": 1},
        {"family": "value-head", "epochs": 4},
        {"family": "rlhflow", "epochs": 4},
    ],
    ids=lambda settings: str(settings["family"]),
)
def test_a_model_of_true_step_labels_finds_nearly_every_first_wrong_step(
    settings: dict[str, Any], training_file: Path, held_out: Path, tmp_path: Path
) -> None:
    """The first wrong step against right steps before any error, as the demo measures it."""
    config = TrainConfig(
        objective="step-ce", learning_rate=1e-3, batch_size=16, step_rule="newline", **settings
    )
    train.run(
        train.Options(
            graded=training_file, model=str(policy_path("mid")), out=tmp_path / "prm", config=config, seed=0
        )
    )
    score.run(score.Options(input=held_out, prm=str(tmp_path / "prm"), out=tmp_path / "scores.jsonl"))
    steps = join_labels(list(read_rollouts(held_out)), read_score_columns(tmp_path / "scores.jsonl"))
    result = localise(steps, bootstrap=ProblemBootstrap(steps.num_clusters, num_draws=100))
    assert result.num_first_wrong_steps > 100
    assert result.auc.estimate > 0.98

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from stepcredit import ImplicitPRM
from stepcredit.lab.policies import policy_path
from stepcredit.types import Rollout
from stepcredit_study.analyses.propositions import (
    ResponsePrefix,
    effective_share,
    estimation_errors,
    largest_weight,
    log_weights,
    tree_numbers,
    trees,
    weight_numbers,
)

PROMPT = "7*8+5-3+9="
PREFIXES = (ResponsePrefix(PROMPT, "7*8=6\n"), ResponsePrefix(PROMPT, "7*8=6\n6+5=1\n"))


def test_the_implicit_value_of_a_checkpoint_is_exact_and_lies_between_the_bounds(strong_prm: Path) -> None:
    by_model = trees({"prm": strong_prm}, policy_path("mid"), PREFIXES, depth=2)["prm"]
    for tree in by_model:
        assert np.exp(tree.completions.log_probs).sum() == pytest.approx(1.0, abs=1e-12)
        assert tree.exact().log_mean_exp == pytest.approx(tree.value, abs=1e-11)
        for beta in (0.01, 1.0, 100.0):
            value = tree.exact(beta)
            assert value.mean - 1e-12 <= value.log_mean_exp <= value.maximum + 1e-12
    numbers = tree_numbers("prm", by_model, (1e-3, 1.0, 1e4))
    assert numbers["exact/prm/error"] < 1e-11
    assert numbers["bounds/prm/outside"] < 1e-11
    assert 1 > numbers["bounds/prm/0.001"] > numbers["bounds/prm/1"] > numbers["bounds/prm/10000"] > 0


def test_weights_of_sampled_continuations_have_a_mean_of_one(strong_prm: Path) -> None:
    prefixes = (ResponsePrefix(PROMPT, ""), *PREFIXES)
    how = {"num_samples": 200, "max_new_tokens": 24, "seed": 1}
    weights = log_weights({"prm": strong_prm}, policy_path("mid"), prefixes, **how)["prm"]
    assert weights.shape == (3, 200)
    weights = np.exp(weights)
    error = weights.std(axis=1) / np.sqrt(200)
    assert (np.abs(weights.mean(axis=1) - 1) < 4 * error + 1e-6).all()


def test_weights_are_those_of_the_tokens_after_the_prefix_wherever_steps_end(
    strong_prm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Usual; after a blank line, which belongs to the prefix's last step; and ended at once.
    endings = ("6+5=1\n1-3=8\n#8", "\n#1", "")
    prefixes = (ResponsePrefix(PROMPT, "7*8=6\n"), ResponsePrefix(PROMPT, ""))
    written = [
        Rollout(id=f"{n}/{i}", prompt_id=str(n), index=i, prompt=PROMPT, response=start.text + ending)
        for n, start in enumerate(prefixes)
        for i, ending in enumerate(endings)
    ]

    class Written:
        def generate(self, _: object) -> list[Rollout]:
            return written

    monkeypatch.setattr("stepcredit_study.analyses.propositions.make_generator", lambda *_, **__: Written())
    weights = log_weights(
        {"prm": strong_prm}, policy_path("mid"), prefixes, num_samples=3, max_new_tokens=24, seed=1
    )["prm"]
    for score in ImplicitPRM.from_pretrained(strong_prm, with_tokens=True).score_all(written):
        number, index = map(int, score.id.split("/"))
        assert score.token_rewards is not None
        after = score.token_rewards[len(prefixes[number].text) :]  # one token a character
        assert weights[number, index] == pytest.approx(math.fsum(after) / 0.5, abs=1e-5)
    assert (weights[0] != 0).all()


def test_errors_are_those_of_disjoint_groups() -> None:
    weights = np.log([[1.0, 3.0, 2.0, 2.0, 9.0], [1.0, 1.0, 0.5, 0.5, 9.0]])
    assert estimation_errors(weights, 2) == pytest.approx(np.log([2.0, 2.0, 1.0, 0.5]))
    numbers = weight_numbers("prm", weights, (2, 4))
    assert numbers["sampled/prm/2"] == pytest.approx(np.sqrt(np.mean(np.log([2.0, 2.0, 1.0, 0.5]) ** 2)))
    assert numbers["sampled/prm/mean"] == pytest.approx(np.mean(np.log([2.0, 0.75])))


def test_a_sample_that_carries_the_estimate_is_told_by_its_share() -> None:
    alike, one = np.zeros((2, 4)), np.array([[0.0, -50.0, -50.0, -50.0]])
    assert effective_share(alike) == pytest.approx(1.0)
    assert largest_weight(alike) == pytest.approx(0.25)
    assert effective_share(one) == pytest.approx(0.25)
    assert largest_weight(one) == pytest.approx(1.0)

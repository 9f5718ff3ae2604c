from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from stepcredit.data import rollout_to_json, write_rows
from stepcredit.runs import Ledger, Manifest, manifest_path, write_json
from stepcredit.types import Rollout
from stepcredit_study.analyses.operations import UNSHARED, Tokens, operations, share_to_reach

PARAMETERS = 10


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    """Two responses to a, one of them right; two equal, wrong ones to b. Prompts of 3 and 5 tokens."""
    rows = [("a", "x", True, 3, 7), ("a", "y", False, 3, 9), ("b", "z", False, 5, 4), ("b", "z", False, 5, 4)]
    path = tmp_path / "graded.jsonl"
    write_rows(
        path,
        (
            rollout_to_json(
                Rollout(
                    id=str(number),
                    prompt_id=prompt,
                    prompt=prompt,
                    response=response,
                    correct=correct,
                    extras={"num_prompt_tokens": read, "num_generated_tokens": drawn},
                )
            )
            for number, (prompt, response, correct, read, drawn) in enumerate(rows)
        ),
    )
    return path


def made_by(path: Path, ledger: Ledger, **notes: Any) -> Path:
    """An output with this in its manifest."""
    path.touch()
    write_json(manifest_path(path), Manifest("sample", {}, ledger=ledger, notes=notes).to_json())
    return path


def test_tokens_are_counted_from_the_rows(graded: Path) -> None:
    assert Tokens.of(graded, paired=False) == Tokens(
        prompts_once=3 + 5, generated=7 + 9 + 4 + 4, whole=10 + 12 + 9 + 9, distinct=10 + 12 + 9
    )


def test_pairs_leave_out_prompts_with_one_kind_of_response(graded: Path) -> None:
    assert Tokens.of(graded, paired=True).distinct == 10 + 12


def test_a_model_without_labels_costs_sampling_training_and_the_reference(
    graded: Path, tmp_path: Path
) -> None:
    # Held-out passes (scored tokens) do not count.
    model = made_by(
        tmp_path / "model", Ledger(model_parameters=PARAMETERS, trained_tokens=80, scored_tokens=999)
    )
    parts = operations(graded, None, model, paired=False, has_reference=True)
    assert parts["collection"] == 2 * PARAMETERS * (8 + 24)
    assert parts["collection" + UNSHARED] == 2 * PARAMETERS * 40
    assert parts["labelling"] == parts["labelling" + UNSHARED] == 0
    assert parts["training"] == 6 * PARAMETERS * 80 + 2 * PARAMETERS * 31
    without = operations(graded, None, model, paired=False, has_reference=False)
    assert without["training"] == 6 * PARAMETERS * 80


def test_monte_carlo_labels_cost_what_their_two_ledgers_say(graded: Path, tmp_path: Path) -> None:
    model = made_by(tmp_path / "model", Ledger(model_parameters=PARAMETERS, trained_tokens=80))
    labels = made_by(
        tmp_path / "labels",
        Ledger(model_parameters=PARAMETERS, generated_tokens=100),
        ledger_without_sharing=Ledger(model_parameters=PARAMETERS, generated_tokens=300).to_json(),
    )
    parts = operations(graded, labels, model, paired=False, has_reference=False)
    assert (parts["labelling"], parts["labelling" + UNSHARED]) == (2_000, 6_000)


def test_a_verifiers_labels_cost_its_training_and_one_reading(graded: Path, tmp_path: Path) -> None:
    model = made_by(tmp_path / "model", Ledger(model_parameters=PARAMETERS, trained_tokens=80))
    verifier = Ledger(model_parameters=PARAMETERS, trained_tokens=50, scored_tokens=999)
    labels = made_by(tmp_path / "labels", verifier)
    parts = operations(graded, labels, model, paired=False, has_reference=False)
    assert parts["labelling"] == parts["labelling" + UNSHARED] == 6 * PARAMETERS * 50 + 2 * PARAMETERS * 40


@pytest.mark.parametrize(
    ("target", "share"),
    [(0.1, 0.25), (0.4, 0.25), (0.45, 0.25 * math.sqrt(2)), (0.5, 0.5), (0.7, 2.0), (0.71, math.inf)],
)
def test_between_measured_amounts_accuracy_is_linear_in_the_logarithm(target: float, share: float) -> None:
    curve = [(0.25, 0.4), (0.5, 0.5), (1.0, 0.6), (2.0, 0.7)]
    assert share_to_reach(curve, target) == pytest.approx(share)


def test_a_curve_that_falls_and_rises_is_read_where_it_first_gets_there() -> None:
    assert share_to_reach([(1.0, 0.5), (2.0, 0.3), (4.0, 0.6)], 0.6) == pytest.approx(4.0)

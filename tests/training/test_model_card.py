"""A model card says on which labels its model was trained, and how to load it."""

from __future__ import annotations

from typing import Any

import pytest

from stepcredit.checkpoints import PRMCard
from stepcredit.training.model_card import model_card

MANIFEST: dict[str, Any] = {
    "counts": {"examples": 8, "rollouts": 8},
    "ledger": {"trained_tokens": 80, "flops": 1e6, "flops_formula": "6 N D"},
}


@pytest.mark.parametrize(
    ("family", "objective", "labels", "load"),
    [
        ("implicit", "ce", "answer labels alone", "prm = ImplicitPRM.from_pretrained('prm')"),
        ("implicit", "dpo", "answer labels alone", "prm = ImplicitPRM.from_pretrained('prm')"),
        ("value-head", "token-ce", "answer labels alone", "prm = load_scorer('prm')"),
        ("value-head", "step-ce (dataset-balanced)", "step labels", "prm = load_scorer('prm')"),
        ("token-classifier", "label-ce", "step labels", "prm = load_scorer('prm')"),
    ],
)
def test_it_names_the_labels_and_the_loader(family: str, objective: str, labels: str, load: str) -> None:
    card = PRMCard(family=family, objective=objective, step_rule="newline")
    text = model_card(card, name="prm", base="base", manifest=MANIFEST)
    assert f"with the objective {objective}, on {labels}.\n" in text
    assert f"\n{load}\n" in text


def test_it_says_how_many_responses_it_was_measured_on_and_whether_they_chose_the_weights() -> None:
    counts = {**MANIFEST["counts"], "heldout_rollouts": 8, "heldout_not_graded": 3, "heldout_examples": 5}
    manifest = {**MANIFEST, "counts": counts, "heldout": {"auc": 0.75}}
    for keep_best, title in ((True, "(5 responses, which also chose the weights)"), (False, "(5 responses)")):
        card = PRMCard(objective="ce", step_rule="newline", settings={"keep_best": keep_best})
        text = model_card(card, name="prm", base="base", manifest=manifest)
        assert f"## Held-out results {title}\n" in text

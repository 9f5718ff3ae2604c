from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stepcredit.errors import UserError
from stepcredit.pipelines import train
from stepcredit.training.config import TrainConfig
from stepcredit_study.gsm8k.transfer import Options, run
from stepcredit_study.gsm8k.transfer_page import transfer_page


def write_mistakes(path: Path) -> None:
    rows = [
        {
            "input": f"{number} + 1 + 1 =",
            "steps": [f"{number} + 1 = {number + 1}.", f"{number + 1} + 1 = {number + wrong}.", "Done."],
            "target": str(number + 2),
            "answer": str(number + wrong),
            "mistake_index": None if wrong == 2 else 1,
        }
        for number in range(8)
        for wrong in (2, 5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.slow
def test_models_are_judged_on_solutions_and_mistakes_that_they_never_saw(
    small_model: Path, write_solutions: Callable[[Path, int], None], tmp_path: Path
) -> None:
    write_solutions(tmp_path / "train.jsonl", 6)
    config = TrainConfig(objective="ce", learning_rate=1e-3, step_rule="newline", batch_size=8)
    data, prm = tmp_path / "train.jsonl", tmp_path / "prm"
    train.run(train.Options(graded=data, model=str(small_model), out=prm, config=config))
    write_solutions(tmp_path / "solutions.jsonl", 8)
    write_mistakes(tmp_path / "mistakes.jsonl")
    options = Options(
        prms={"ours": prm},
        reference=small_model,
        out=tmp_path / "out",
        solutions=tmp_path / "solutions.jsonl",
        mistakes=tmp_path / "mistakes.jsonl",
    )
    results = run(options)
    recorded = results["recorded solutions"]
    assert set(recorded["methods"]) == {"shortness", "reference", "ours"}
    assert 0.0 <= recorded["methods"]["ours"]["within a problem"][0] <= 1.0
    pass_at_4 = [row for row in recorded["best of n"] if row["method"] == "pass" and row["n"] == 4]
    assert pass_at_4[0]["accuracy"] == 1.0
    assert {row["scorer"] for row in recorded["best of n"] if row["method"] == "best-of-n"} == {
        "ours",
        "reference",
    }
    mistakes = results["mistakes"]
    assert (mistakes["first wrong"], mistakes["right before"]) == (8, 32)
    assert set(mistakes["methods"]) == {"shortness", "reference", "ours"}
    assert set(mistakes["methods"]["ours"]) == {
        *("auc", "minus reference", "minus shortness", "at the same position")
    }
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    page = (tmp_path / "out" / "README.md").read_text()
    assert "32 solutions to 8 problems by 4 models; " in page
    assert "8 first wrong steps, 32 right steps before any." in page
    assert page.count("| ours | ") == 3
    assert page.count("| best-of-n, ours | ") == 1


def test_a_model_transfers_where_it_is_better_than_chance_and_both_controls() -> None:
    better, worse, unclear = [0.1, 0.02, 0.2], [-0.1, -0.2, -0.02], [0.1, -0.1, 0.2]
    methods = {
        name: {
            "auc": auc,
            "minus reference": reference,
            "minus shortness": shortness,
            "at the same position": [0.5, 0.4, 0.6],
        }
        for name, auc, reference, shortness in (
            ("good", [0.7, 0.6, 0.8], better, better),
            ("no better", [0.7, 0.6, 0.8], better, unclear),
            ("worse", [0.7, 0.6, 0.8], worse, unclear),
            ("chance", [0.5, 0.4, 0.6], better, better),
        )
    }
    measured = {"first wrong": 3, "right before": 9, "by position": [0.7, 0.6, 0.8], "methods": methods}
    page = transfer_page({"mistakes": measured})
    assert "later ones first, has AUC 0.700 [0.600, 0.800]." in page
    verdicts = [line.split("**")[1] for line in page.splitlines() if "**" in line]
    assert verdicts == ["transfers", "undecided", "does not transfer", "undecided"]


def test_without_models_or_data_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no data"):
        run(Options(prms={"ours": tmp_path}, reference=tmp_path, out=tmp_path))
    with pytest.raises(UserError, match="--prm: no reward model"):
        run(Options(prms={}, reference=tmp_path, out=tmp_path, solutions=tmp_path / "s.jsonl"))

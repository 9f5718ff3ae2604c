from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.comparison.made_up import RECIPE
from tests.processes import CONTEXT
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.comparison.recipe import read_recipe
from stepcredit.comparison.results import ComparisonResult
from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.tutor import WEAK
from stepcredit.pipelines import compare
from stepcredit.runs import Ledger, Manifest, manifest_path, workers, write_json


def _write(path: Path, split: str, *, problems: int = 6, samples: int = 4) -> None:
    rollouts = tutor_rollouts(WEAK, problems, samples, split=split, seed=5)
    write_rows(path, map(rollout_to_json, rollouts))


def _manifest(path: Path, *, generated: int, unshared: int | None = None) -> None:
    """Give a file a manifest whose ledger says what it cost, with a model of 10 parameters."""
    manifest = Manifest("made up", {}, ledger=Ledger(model_parameters=10, generated_tokens=generated))
    if unshared is not None:
        manifest.notes["ledger_without_sharing"] = Ledger(10, generated_tokens=unshared).to_json()
    write_json(manifest_path(path), manifest.to_json())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for name, split in (("train", "train"), ("dev", "development"), ("test", "test")):
        _write(root / f"{name}.jsonl", split)
    rows = []
    for rollout in read_rollouts(root / "train.jsonl"):
        labels = [{"end": label.end, "label": label.label} for label in label_steps(rollout)]
        rows.append({**rollout_to_json(rollout), "step_labels": labels})
    write_rows(root / "labelled.jsonl", rows)
    _manifest(root / "train.jsonl", generated=100)
    _manifest(root / "labelled.jsonl", generated=500, unshared=2000)
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return root


@pytest.fixture(scope="module")
def result(world: Path) -> ComparisonResult:
    return compare.run(
        compare.Options(recipe=world / "recipe.yaml", root=world, out=world / "out", draws=200)
    )


@pytest.mark.slow
def test_every_method_is_searched_with_the_same_budget_and_reported(result: ComparisonResult) -> None:
    assert [method.name for method in result.methods] == [method["name"] for method in RECIPE["methods"]]
    assert [len(method.trials) for method in result.methods] == [2, 2, 2, 0, 0, 0]
    for method in result.methods:
        assert set(method.accuracy) == {1, 4}
        if method.chosen is not None:
            best = max(trial.accuracy for trial in method.trials)
            assert method.trials[method.chosen].accuracy == best
    truth = result.methods[-1].accuracy[4][0]
    assert truth == pytest.approx(result.references["pass"][4][0])
    # One response leaves nothing to pick from, whoever picks.
    assert len({round(method.accuracy[1][0], 12) for method in result.methods}) == 1


@pytest.mark.slow
def test_costs_come_from_the_ledgers(result: ComparisonResult) -> None:
    by_name = {method.name: method.cost for method in result.methods}
    # 2 operations for each of 10 parameters and each token drawn.
    assert by_name["ce"].collection == 2 * 10 * 100
    assert by_name["ce"].labelling == 0
    assert by_name["step-labels"].labelling == 2 * 10 * 500
    assert by_name["step-labels"].labelling_unshared == 2 * 10 * 2000
    assert 0 < by_name["ce"].training < by_name["ce"].search
    assert by_name["second-stage"].training > by_name["ce"].training
    content = result.to_json()
    assert content["methods"][0]["cost"]["relative"] == 1.0


@pytest.mark.slow
def test_everything_is_written_down(result: ComparisonResult, world: Path) -> None:
    content = json.loads((world / "out" / compare.RESULTS).read_text())
    assert content["methods"][0]["trials"][0]["settings"] == {"learning_rate": 1e-4}
    summary = (world / "out" / compare.SUMMARY).read_text()
    assert all(
        f"| {method.name} |" in summary for method in read_recipe(world / "recipe.yaml", world).methods
    )
    page = (world / "out" / compare.REPORT).read_text()
    assert "Accuracy against cost" in page
    assert "second-stage" in page
    assert "second-stage" in result.to_text()


def test_draws_that_give_no_interval_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--draws: 99 draws give no interval"):
        compare.run(compare.Options(recipe=tmp_path / "no-recipe.yaml", out=tmp_path / "out", draws=99))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_second_run_trains_nothing_again(
    result: ComparisonResult, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stepcredit.training.run

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stepcredit.training.run, "train_prm", refuse)
    again = compare.run(
        compare.Options(recipe=world / "recipe.yaml", root=world, out=world / "out", draws=200)
    )
    assert again.to_json()["methods"] == result.to_json()["methods"]


@pytest.mark.slow
def test_settings_that_are_tried_side_by_side_come_out_the_same(
    result: ComparisonResult, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From the process that has imported everything.
    monkeypatch.setattr(workers, "START_METHOD", CONTEXT.get_start_method())
    recipe = tmp_path / "one.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "methods": RECIPE["methods"][:1]}))
    together = compare.run(
        compare.Options(recipe=recipe, root=world, out=tmp_path / "out", draws=200, jobs=2)
    )
    alone = result.methods[0]
    assert [trial.accuracy for trial in together.methods[0].trials] == pytest.approx(
        [trial.accuracy for trial in alone.trials]
    )
    assert together.methods[0].accuracy[4] == pytest.approx(alone.accuracy[4])


def test_missing_data_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(UserError, match=r"train\.jsonl"):
        compare.run(compare.Options(recipe=tmp_path / "recipe.yaml", root=tmp_path, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        ("labelled", '{"id": "a"}\n', r"labelled\.jsonl:1"),
        ("dev", "{\n", r"dev\.jsonl:1"),
        ("dev", None, r"dev\.jsonl: has a prompt with 2 graded responses, fewer than choose_at \(4\)"),
        ("test", None, r"test\.jsonl: has a prompt with 2 graded responses, fewer than n \(3\)"),
    ],
)
def test_faults_of_every_file_are_found_before_anything_is_trained(
    file: str, rows: str | None, message: str, world: Path, tmp_path: Path
) -> None:
    for name in ("train", "dev", "test", "labelled"):
        (tmp_path / f"{name}.jsonl").write_bytes((world / f"{name}.jsonl").read_bytes())
    if rows is None:
        _write(tmp_path / f"{file}.jsonl", "test", samples=2)
    else:
        (tmp_path / f"{file}.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "n": [3, 4]}))
    with pytest.raises(UserError, match=message):
        compare.run(compare.Options(recipe=tmp_path / "recipe.yaml", root=tmp_path, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("held_out", "other"), [("dev", "train"), ("test", "labelled"), ("test", "dev")])
def test_problems_that_are_learned_from_or_chosen_on_are_not_held_out(
    held_out: str, other: str, world: Path, tmp_path: Path
) -> None:
    for name in ("train", "dev", "test", "labelled"):
        (tmp_path / f"{name}.jsonl").write_bytes((world / f"{name}.jsonl").read_bytes())
    rows = [rollout_to_json(rollout) for rollout in read_rollouts(world / f"{held_out}.jsonl")]
    first = next(iter(read_rollouts(world / f"{other}.jsonl")))
    for row in rows:
        if row["prompt_id"] == rows[0]["prompt_id"]:
            row["prompt"] = first.prompt  # under an id of its own
    write_rows(tmp_path / f"{held_out}.jsonl", rows)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(UserError, match=rf"{held_out}\.jsonl: has 1 problem of .*(train|{other})\.jsonl"):
        compare.run(compare.Options(recipe=tmp_path / "recipe.yaml", root=tmp_path, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()

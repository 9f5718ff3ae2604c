from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.policies import policy_path
from stepcredit.lab.tutor import WEAK
from stepcredit.pipelines import compare
from stepcredit.pipelines.comparison_recipe import read_recipe, recipe_from
from stepcredit.runs import Ledger, Manifest, manifest_path, write_json


def _write(path: Path, split: str, *, problems: int = 6, samples: int = 4) -> None:
    rollouts = tutor_rollouts(WEAK, problems, samples, split=split, seed=5)
    write_rows(path, map(rollout_to_json, rollouts))


def _manifest(path: Path, *, generated: int, unshared: int | None = None) -> None:
    """Give a file a manifest whose ledger says what it cost, with a model of 10 parameters."""
    manifest = Manifest("made up", {}, ledger=Ledger(model_parameters=10, generated_tokens=generated))
    if unshared is not None:
        manifest.notes["ledger_without_sharing"] = Ledger(10, generated_tokens=unshared).to_json()
    write_json(manifest_path(path), manifest.to_json())


RECIPE: dict[str, Any] = {
    "model": str(policy_path("mid")),
    "train": "train.jsonl",
    "dev": "dev.jsonl",
    "test": "test.jsonl",
    "collection": ["train.jsonl"],
    "n": [1, 4],
    "choose_at": 4,
    "settings": {"batch_size": 16, "epochs": 1, "step_rule": "newline", "beta": 0.5},
    "methods": [
        {
            "name": "ce",
            "train": {"objective": "ce"},
            "search": {"learning_rate": ["1e-4", "5e-4"]},
        },
        {
            "name": "step-labels",
            "train": {"family": "value-head", "objective": "step-ce"},
            "data": "labelled.jsonl",
            "search": {"learning_rate": [1e-4, 5e-4]},
        },
        {
            "name": "second-stage",
            "train": {"objective": "step-ce", "learning_rate": 1e-4},
            "data": "labelled.jsonl",
            "start_from": "ce",
            "search": {"epochs": [1, 2]},
        },
        {"name": "log-probability", "score": {"family": "log-probability", "aggregate": "mean"}},
        {"name": "chance", "baseline": "random"},
        {"name": "truth", "baseline": "oracle"},
    ],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for name, split in (("train", "train"), ("dev", "development"), ("test", "test")):
        _write(root / f"{name}.jsonl", split)
    rows = []
    for rollout in read_rollouts(root / "train.jsonl"):
        labels = [{"end": each.end, "label": each.label} for each in label_steps(rollout)]
        rows.append({**rollout_to_json(rollout), "step_labels": labels})
    write_rows(root / "labelled.jsonl", rows)
    _manifest(root / "train.jsonl", generated=100)
    _manifest(root / "labelled.jsonl", generated=500, unshared=2000)
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return root


@pytest.fixture(scope="module")
def result(world: Path) -> compare.Result:
    return compare.run(
        compare.Options(recipe=world / "recipe.yaml", root=world, out=world / "out", draws=200)
    )


@pytest.mark.slow
def test_every_method_is_searched_with_the_same_budget_and_reported(result: compare.Result) -> None:
    assert [method.name for method in result.methods] == [each["name"] for each in RECIPE["methods"]]
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
def test_costs_come_from_the_ledgers(result: compare.Result) -> None:
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
def test_everything_is_written_down(result: compare.Result, world: Path) -> None:
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


@pytest.mark.slow
def test_a_second_run_trains_nothing_again(
    result: compare.Result, world: Path, monkeypatch: pytest.MonkeyPatch
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
    result: compare.Result, world: Path, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "x"}, "no setting 'modle'"),
        ({"model": None}, "model: is missing"),
        ({"settings": {"learning_rate": "fast"}}, "'fast' is not a number"),
        ({"settings": {"speed": 1}}, "no setting 'speed'"),
        ({"methods": [{"name": "a"}]}, "exactly one of"),
        ({"methods": [{"name": "a", "baseline": "luck"}]}, "no baseline 'luck'"),
        ({"methods": [{"name": "a", "baseline": "random", "data": "x"}]}, "not trained"),
        ({"methods": [{"name": "a", "train": {}, "search": {"epochs": 3}}]}, "list of values"),
        ({"methods": [{"name": "a", "train": {}, "search": [{"epochs": 3}]}]}, "list of values"),
        (
            {"methods": [{"name": "a", "train": {}, "search": [{"epochs": [2]}, {"epochs": [1, 2]}]}]},
            "a: tries the same settings twice",
        ),
        ({"methods": [{"name": "a", "train": {}, "start_from": "b"}]}, "no trained method before it"),
        ({"methods": [{"name": "a", "train": {}}, {"name": "a", "train": {}}]}, "names must differ"),
        ({"methods": [{"name": "a", "train": {"beta": -1}}]}, "--beta"),
    ],
)
def test_mistakes_in_a_recipe_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe_from({**RECIPE, **changes})


def test_unequal_budgets_are_refused() -> None:
    methods = [
        {"name": "a", "train": {}, "search": {"learning_rate": [1e-4, 2e-4]}},
        {"name": "b", "train": {}, "search": {"learning_rate": [1e-4], "beta": [0.1, 0.2, 0.3]}},
    ]
    with pytest.raises(UserError, match=r"a 2, b 3"):
        recipe_from({**RECIPE, "methods": methods})


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml"):
        read_recipe(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="must hold 'name: value' lines"):
        read_recipe(tmp_path / "list.yaml")


def test_missing_data_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(UserError, match=r"train\.jsonl"):
        compare.run(compare.Options(recipe=tmp_path / "recipe.yaml", root=tmp_path, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_search_may_have_several_grids() -> None:
    grids = [{"learning_rate": ["1e-4", "5e-4"], "epochs": [1]}, {"beta": [0.1, 0.5, 1]}]
    content = dict.fromkeys(("model", "train", "dev", "test"), "x")
    recipe = recipe_from({**content, "methods": [{"name": "a", "train": {"epochs": 2}, "search": grids}]})
    (method,) = recipe.methods
    assert (method.num_trials, recipe.budget) == (5, 5)
    tried: list[Any] = [
        (settings, config.epochs, config.learning_rate) for settings, config in method.trials(recipe.settings)
    ]
    assert tried[1] == ({"learning_rate": 5e-4, "epochs": 1}, 1, 5e-4)
    assert tried[2] == ({"beta": 0.1}, 2, 5e-7)


def test_the_shipped_comparison_can_be_read_and_is_fair(tmp_path: Path) -> None:
    recipe = read_recipe(Path("lab"), tmp_path)
    assert recipe.budget == 8
    assert {method.num_trials for method in recipe.methods if method.train is not None} == {8}
    assert recipe.train == tmp_path / "train" / "graded.jsonl"
    for method in recipe.methods:
        if method.train is not None:
            assert len({config.learning_rate for _, config in method.trials(recipe.settings)}) > 1


def test_intervals_that_are_missing_are_null() -> None:
    ends = {4: (1.0, float("nan"), float("nan"))}
    result = compare.Result(
        out=Path("out"), methods=(), references={"pass": ends}, comparisons=[], budget=1, choose_at=4
    )
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["references"] == {
        "pass": {"4": [1.0, None, None]}
    }

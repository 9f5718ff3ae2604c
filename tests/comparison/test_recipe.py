from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.comparison.made_up import RECIPE

from stepcredit.comparison.recipe import read_recipe, recipe_from
from stepcredit.errors import UserError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "x"}, "no setting 'modle'"),
        ({"methods": [{"name": "a", "score": {"aggregat": "min"}}]}, r"methods\[0\].score.*'aggregat'"),
        ({"methods": [{"name": "a", "score": {"beta": "big"}}]}, r"methods\[0\].score: beta"),
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
        (
            {"methods": [{"name": "a", "train": {}, "start_from": "b"}]},
            "not a trained method listed before it",
        ),
        ({"methods": [{"name": "a", "train": {}}, {"name": "a", "train": {}}]}, "names must differ"),
        ({"methods": [{"name": "..", "train": {}}]}, "names must .* be more than dots"),
        ({"methods": [{"name": ".", "train": {}}]}, "names must .* be more than dots"),
        ({"methods": []}, "methods: there are none to compare"),
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

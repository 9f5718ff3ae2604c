"""What ``stepcredit compare`` compares: a recipe in YAML, checked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit.recipes import comparison_names, comparison_path
from stepcredit.training.config import TrainConfig

BASELINES = ("random", "shortest", "longest", "self-consistency", "oracle")


@dataclass(frozen=True, kw_only=True)
class ComparedMethod:
    """One row of the comparison.

    Exactly one of ``train``, ``score`` and ``baseline`` says what it is.

    Attributes:
        name: Unique.
        train: Training settings of its own, on top of the recipe's ``settings``.
        search: Grids of training settings; all combinations within each grid are tried.
        data: Training file, where it is not the recipe's: with step labels, say.
        start_from: Method whose chosen model is the initial weights (a second stage).
        score: Scores by the untrained initial model instead: options of ``stepcredit score``.
        baseline: Scores without a model: a name of ``stepcredit baseline --by``.
    """

    name: str
    train: Mapping[str, Any] | None = None
    search: tuple[Mapping[str, tuple[Any, ...]], ...] = ({},)
    data: Path | None = None
    start_from: str | None = None
    score: Mapping[str, Any] | None = None
    baseline: str | None = None

    @property
    def num_trials(self) -> int:
        """How many settings are tried."""
        return sum(prod(map(len, grid.values())) for grid in self.search)

    def trials(self, shared: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], TrainConfig]]:
        """Each combination of the searched values, and the whole configuration."""
        for grid in self.search:
            for values in product(*grid.values()):
                tried = dict(zip(grid, values, strict=True))
                yield tried, TrainConfig(**{**shared, **(self.train or {}), **tried})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A comparison: the same weights, data and budget for every method.

    Attributes:
        model: Initial weights (and reference) of every method.
        train: Graded rollouts to train on.
        dev: Graded rollouts on which settings, aggregates and weights are chosen.
        test: Graded rollouts on which results are reported.
        methods: What is compared, in order.
        settings: Training settings of all methods.
        collection: Files whose manifests state what the shared training data cost.
        n: Responses to choose from.
        choose_at: The number of responses at which settings are compared on ``dev``.
        seed: Of every training run.
    """

    model: str
    train: Path
    dev: Path
    test: Path
    methods: tuple[ComparedMethod, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    collection: tuple[Path, ...] = ()
    n: tuple[int, ...] = (1, 4, 16, 64)
    choose_at: int = 16
    seed: int = 0

    def method(self, name: str) -> ComparedMethod:
        """The method called ``name``."""
        return next(method for method in self.methods if method.name == name)

    def to_json(self) -> dict[str, Any]:
        """All fields, paths as text."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return content

    @property
    def budget(self) -> int:
        """Training runs of each trained method."""
        return max((method.num_trials for method in self.methods if method.train is not None), default=0)


def read_recipe(path: Path, root: Path = Path()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file, or the name of a comparison that ships with the package.
        root: Folder that the recipe's paths are relative to.

    Raises:
        UserError: The file does not hold a fair comparison, with the field.
    """
    import yaml

    if not path.exists():
        path = comparison_path(str(path)) or path
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(comparison_names())
        raise UserError(
            "cannot be read", where=path, hint=f"check the path, or use one that ships: {known}"
        ) from error
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"is not YAML ({problem})", where=path) from error
    if not isinstance(content, dict):
        raise UserError("does not hold settings", where=path, hint="write them as name: value")
    return recipe_from(content, root=root, where=str(path))


def recipe_from(content: Mapping[str, Any], *, root: Path = Path(), where: str = "recipe") -> Recipe:
    """The recipe that plain values describe; see :func:`read_recipe`."""
    values = _known(content, Recipe, where)
    for name in ("model", "train", "dev", "test", "methods"):
        if not values.get(name):
            raise UserError("is missing", where=f"{where}: {name}")
    listed = values["methods"]
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise UserError("is not a list of methods", where=f"{where}: methods")
    values["methods"] = tuple(
        _method(each, root, f"{where}: methods[{number}]") for number, each in enumerate(listed)
    )
    for name in ("train", "dev", "test"):
        values[name] = root / str(values[name])
    if (root / str(values["model"])).is_dir():
        values["model"] = str(root / str(values["model"]))
    values["collection"] = tuple(root / str(each) for each in values.get("collection", ()))
    values["settings"] = _settings(values.get("settings", {}), f"{where}: settings")
    if "n" in values:
        values["n"] = tuple(values["n"])
    recipe = Recipe(**values)
    _check(recipe, where)
    return recipe


def _known(content: Mapping[str, Any], kind: type[Any], where: str) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    for name in content:
        if name not in names:
            raise UserError(
                f"there is no setting {name!r}", where=where, hint=f"use {', '.join(sorted(names))}"
            )
    return dict(content)


def _method(content: Mapping[str, Any], root: Path, where: str) -> ComparedMethod:
    values = _known(content, ComparedMethod, where)
    if not isinstance(values.get("name"), str):
        raise UserError("has no name", where=where)
    kinds = [kind for kind in ("train", "score", "baseline") if values.get(kind) is not None]
    if len(kinds) != 1:
        raise UserError("must have exactly one of train, score and baseline", where=where)
    if kinds != ["train"] and any(values.get(name) for name in ("search", "data", "start_from")):
        raise UserError("is not trained, so it has no search, data or start_from", where=where)
    if "train" in values:
        values["train"] = _settings(values["train"], f"{where}.train")
        values["search"] = _grids(values.get("search", {}), f"{where}.search")
    if values.get("data") is not None:
        values["data"] = root / str(values["data"])
    if values.get("baseline") not in (None, *BASELINES):
        raise UserError(
            f"there is no baseline {values['baseline']!r}", where=where, hint=f"use {', '.join(BASELINES)}"
        )
    return ComparedMethod(**values)


def _grids(content: Any, where: str) -> tuple[dict[str, tuple[Any, ...]], ...]:
    """One grid, or a list of several."""
    grids = content if isinstance(content, list) and content else [content]
    for grid in grids:
        if not isinstance(grid, dict) or not all(isinstance(each, list) and each for each in grid.values()):
            raise UserError("must give a list of values for each setting", where=where)
    return tuple(
        {
            name: tuple(_settings({name: value}, where)[name] for value in listed)
            for name, listed in grid.items()
        }
        for grid in grids
    )


def _settings(content: Any, where: str) -> dict[str, Any]:
    """Training settings with numbers as numbers (YAML reads 1e-4 as text)."""
    if not isinstance(content, dict):
        raise UserError("must give settings as name: value", where=where)
    values = _known(content, TrainConfig, where)
    for each in fields(TrainConfig):
        value = values.get(each.name)
        if each.type == "float" and value is not None:
            try:
                values[each.name] = float(value)
            except (TypeError, ValueError) as error:
                raise UserError(f"{value!r} is not a number", where=f"{where}: {each.name}") from error
    return values


def _check(recipe: Recipe, where: str) -> None:
    names = [method.name for method in recipe.methods]
    if len(set(names)) < len(names) or not all(
        name and "/" not in name and "=" not in name for name in names
    ):
        raise UserError("names must differ, and hold no / or =", where=f"{where}: methods")
    trained = [method for method in recipe.methods if method.train is not None]
    counts = {method.name: method.num_trials for method in trained}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(
            f"methods are tried with different numbers of settings ({told})",
            where=f"{where}: search",
            hint="give each method equally many combinations, so that none has the larger budget",
        )
    for position, method in enumerate(recipe.methods):
        configs = [config for _, config in method.trials(recipe.settings)] if method.train is not None else []
        if any(config in configs[:number] for number, config in enumerate(configs)):
            raise UserError(
                "tries the same settings twice",
                where=f"{where}: {method.name}",
                hint="change one of its grids",
            )
        if method.start_from is not None and method.start_from not in [
            earlier.name for earlier in recipe.methods[:position] if earlier.train is not None
        ]:
            raise UserError(
                f"starts from {method.start_from!r}, which is no trained method before it",
                where=f"{where}: {method.name}",
            )
    if recipe.choose_at < 1 or not recipe.n or min(recipe.n) < 1:
        raise UserError("numbers of responses are at least 1", where=f"{where}: n, choose_at")

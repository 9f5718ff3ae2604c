"""What ``stepcredit compare`` compares: a recipe in YAML, checked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit.recipes import comparison_names, comparison_path, read_settings
from stepcredit.scorers.options import ScorerOptions
from stepcredit.training.config import TrainConfig
from stepcredit.typed_values import typed_fields, typed_record
from stepcredit.wording import suggestion

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
        score: Scores without training: options of ``stepcredit score``, whose ``prm`` is the initial model
            unless it names another, such as a judge.
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
    content = read_settings(path, comparison_path, comparison_names())
    return recipe_from(content, root=root, where=str(path))


def recipe_from(content: Mapping[str, Any], *, root: Path = Path(), where: str = "recipe") -> Recipe:
    """The recipe that plain values describe; see :func:`read_recipe`."""
    recipe = typed_record(Recipe, content, where)
    recipe = replace(
        recipe,
        model=str(root / recipe.model) if (root / recipe.model).is_dir() else recipe.model,
        train=root / recipe.train,
        dev=root / recipe.dev,
        test=root / recipe.test,
        collection=tuple(root / path for path in recipe.collection),
        settings=typed_fields(TrainConfig, recipe.settings, f"{where}: settings"),
        methods=tuple(
            _method(method, root, f"{where}: methods[{number}]")
            for number, method in enumerate(recipe.methods)
        ),
    )
    _check(recipe, where)
    return recipe


def _method(method: ComparedMethod, root: Path, where: str) -> ComparedMethod:
    kinds = [kind for kind in ("train", "score", "baseline") if getattr(method, kind) is not None]
    if len(kinds) != 1:
        raise UserError("must have exactly one of train, score and baseline", where=where)
    if method.train is None:
        if method.search != ({},) or method.data is not None or method.start_from is not None:
            raise UserError("is not trained, so it has no search, data or start_from", where=where)
        if method.baseline not in (None, *BASELINES):
            raise UserError(
                f"there is no baseline {method.baseline!r}",
                where=where,
                hint=suggestion(str(method.baseline), BASELINES),
            )
        if method.score is None:
            return method
        return replace(method, score=typed_fields(ScorerOptions, method.score, f"{where}.score"))
    return replace(
        method,
        train=typed_fields(TrainConfig, method.train, f"{where}.train"),
        search=tuple(_grid(grid, f"{where}.search") for grid in method.search),
        data=None if method.data is None else root / method.data,
    )


def _grid(grid: Mapping[str, tuple[Any, ...]], where: str) -> dict[str, tuple[Any, ...]]:
    """A grid with its values as training settings."""
    if not all(grid.values()):
        raise UserError("must give a list of values for each setting", where=where)
    columns: dict[str, tuple[Any, ...]] = {}
    for name, values in grid.items():
        settings = [typed_fields(TrainConfig, {name: value}, where) for value in values]
        (key,) = settings[0]
        columns[key] = tuple(setting[key] for setting in settings)
    return columns


def _check(recipe: Recipe, where: str) -> None:
    names = [method.name for method in recipe.methods]
    if not names:
        raise UserError("there are none to compare", where=f"{where}: methods")
    # Each names a folder; a dot would be the folder of all, and two the one above it.
    if len(set(names)) < len(names) or not all(
        name.strip(".") and "/" not in name and "=" not in name for name in names
    ):
        raise UserError("names must differ, hold no / or =, and be more than dots", where=f"{where}: methods")
    trained = [method for method in recipe.methods if method.train is not None]
    counts = {method.name: method.num_trials for method in trained}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(
            f"methods are tried with different numbers of settings ({listed})",
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
                f"starts from {method.start_from!r}, which is not a trained method listed before it",
                where=f"{where}: {method.name}",
            )
    if recipe.choose_at < 1 or not recipe.n or min(recipe.n) < 1:
        raise UserError("numbers of responses are at least 1", where=f"{where}: n, choose_at")

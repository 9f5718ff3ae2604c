"""The search of ``stepcredit compare``: every method's settings, tried on development problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.errors import UserError
from stepcredit.pipelines import baseline, eval_best_of_n, score, train
from stepcredit.pipelines.comparison_recipe import ComparedMethod, Recipe
from stepcredit.pipelines.driver import Store
from stepcredit.runs import Progress, worker_pool

if TYPE_CHECKING:
    from stepcredit.training.config import TrainConfig

_TRIAL_DRAWS = 100
"""Bootstrap draws of a trial, whose interval nobody reads."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of a method.

    Attributes:
        settings: What was tried.
        directory: Its model and scores.
        accuracy: Best-of-n accuracy on the development problems, by its best aggregate.
        aggregate: That aggregate.
        training: Ledger of the training.
    """

    settings: Mapping[str, Any]
    directory: str
    accuracy: float
    aggregate: str
    training: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A method's trials, and the files of the chosen one."""

    trials: tuple[Trial, ...]
    chosen: int | None
    dev_scores: Path
    test_scores: Path


@dataclass(frozen=True, slots=True)
class Search:
    """What all trials share.

    Attributes:
        recipe: The comparison.
        store: Models and scores.
        load: How models are loaded.
    """

    recipe: Recipe
    store: Store
    load: LoadOptions


@dataclass(frozen=True, slots=True)
class _Task:
    """One setting of one method, to be trained from ``model``."""

    method: ComparedMethod
    model: str
    settings: Mapping[str, Any]
    config: TrainConfig


def search(work: Search, *, jobs: int = 1) -> dict[str, Searched]:
    """Try every method's settings, and score the test responses with the best of each.

    Args:
        work: What all trials share.
        jobs: Trials at the same time. One thread computes otherwise than two, beyond the last digits;
            the same number of processors a trial gives the same weights.

    Returns:
        Method to its trials, in the recipe's order.
    """
    methods = work.recipe.methods
    trained = [method for method in methods if method.train is not None]
    first = [method for method in trained if method.start_from is None]
    found: dict[str, Searched] = {}
    _search_together(work, first, jobs, found)
    for method in trained:
        if method.start_from is not None:
            _search_together(work, [method], jobs, found)
    for method in methods:
        if method.train is None:
            found[method.name] = _untrained(work, method)
    return {method.name: found[method.name] for method in methods}


def _search_together(
    work: Search, methods: Sequence[ComparedMethod], jobs: int, found: dict[str, Searched]
) -> None:
    """Search methods that do not depend on each other; ``found`` grows."""
    tasks = [
        _Task(method, _initial_weights(work, method, found), settings, config)
        for method in methods
        for settings, config in method.trials(work.recipe.settings)
    ]
    with Progress("compare", len(tasks), "settings", every=1.0) as progress:
        trials: list[Trial] = []
        for task, trial in zip(tasks, _tried(work, tasks, jobs), strict=True):
            trials.append(trial)
            progress.advance(extra=f"{task.method.name} {trial.accuracy:.3f}")
    for method in methods:
        own = [trial for task, trial in zip(tasks, trials, strict=True) if task.method is method]
        chosen = max(range(len(own)), key=lambda number: own[number].accuracy)
        best = Path(own[chosen].directory)
        _score(work, best / "prm", work.recipe.test, best / "test.jsonl")
        found[method.name] = Searched(
            trials=tuple(own),
            chosen=chosen,
            dev_scores=best / "dev.jsonl",
            test_scores=best / "test.jsonl",
        )


def _tried(work: Search, tasks: Sequence[_Task], jobs: int) -> Iterator[Trial]:
    """The trials in the order of the tasks."""
    if jobs == 1:
        yield from (_trial(work, task) for task in tasks)
        return
    with worker_pool(jobs) as pool:
        yield from pool.map(partial(_trial, work), tasks)


def _initial_weights(work: Search, method: ComparedMethod, found: Mapping[str, Searched]) -> str:
    if method.start_from is None:
        return work.recipe.model
    before = found[method.start_from]
    assert before.chosen is not None, "recipes let only trained methods be started from"
    return str(Path(before.trials[before.chosen].directory) / "prm")


def _trial(work: Search, task: _Task) -> Trial:
    from stepcredit.runs import hash_json, read_manifest

    recipe, config = work.recipe, task.config
    name = hash_json([config.determining(), task.model, recipe.seed]).removeprefix("sha256:")[:12]
    directory = work.store.root / task.method.name / name
    work.store.run(
        "train",
        train.Options(
            graded=task.method.data or recipe.train,
            model=task.model,
            out=directory / "prm",
            dev=recipe.dev,
            reference=recipe.model if config.family == "implicit" and not config.reference_free else None,
            config=config,
            load=work.load,
            seed=recipe.seed,
        ),
    )
    _score(work, directory / "prm", recipe.dev, directory / "dev.jsonl")
    accuracy, aggregate = _development_accuracy(recipe, directory / "dev.jsonl")
    ledger = (read_manifest(directory / "prm") or {}).get("ledger", {})
    return Trial(
        settings=task.settings,
        directory=str(directory),
        accuracy=accuracy,
        aggregate=aggregate,
        training=ledger,
    )


def _score(work: Search, prm: Path, source: Path, out: Path) -> None:
    work.store.run("score", score.Options(input=source, prm=str(prm), out=out, load=work.load))


def _untrained(work: Search, method: ComparedMethod) -> Searched:
    directory = work.store.root / method.name
    files = {"dev": work.recipe.dev, "test": work.recipe.test}
    for name, source in files.items():
        _score_untrained(work, method, source, directory / f"{name}.jsonl")
    return Searched(
        trials=(), chosen=None, dev_scores=directory / "dev.jsonl", test_scores=directory / "test.jsonl"
    )


def _score_untrained(work: Search, method: ComparedMethod, source: Path, out: Path) -> None:
    recipe = work.recipe
    if method.baseline is not None:
        options = baseline.Options(rollouts=source, by=method.baseline, out=out, seed=recipe.seed)
        work.store.run("baseline", options)
        return
    try:
        wanted = score.Options(
            **{
                "steps": recipe.settings.get("step_rule"),
                **(method.score or {}),
                "input": source,
                "prm": recipe.model,
                "out": out,
                "load": work.load,
            }
        )
    except TypeError as error:
        raise UserError(f"has a setting that scoring does not know ({error})", where=method.name) from error
    work.store.run("score", wanted)


def _development_accuracy(recipe: Recipe, scores: Path) -> tuple[float, str]:
    """Best aggregate on the development problems, and its best-of-n accuracy."""
    evaluation = eval_best_of_n.run(
        eval_best_of_n.Options(
            graded=recipe.dev,
            scores=(f"trial={scores}",),
            n=(recipe.choose_at,),
            weighted=(),
            draws=_TRIAL_DRAWS,
        )
    ).evaluation
    rows = [row for row in evaluation.results if row.method == "best-of-n"]
    if not rows:
        raise UserError(
            f"has no prompt with {recipe.choose_at} responses",
            where=recipe.dev,
            hint="lower choose_at, or sample more responses",
        )
    best = max(rows, key=lambda row: row.accuracy)
    return best.accuracy, str(best.aggregate)

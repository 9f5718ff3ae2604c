"""Compare reward models fairly, from one recipe.

Every method gets the same initial weights and data, and tries equally many settings on development problems,
which the test never uses. The report has all trials, the test results with paired intervals, and the cost of
each method: collecting and labelling its data, and training. A run that was killed continues from the last
finished trial when the same command is run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.comparison.recipe import ComparedMethod, Recipe, read_recipe
from stepcredit.comparison.results import ComparisonResult, MethodCost, MethodResult, Trial
from stepcredit.data import read_rollouts
from stepcredit.data.prompt_ids import shared_problems
from stepcredit.errors import UserError
from stepcredit.options import argument, check_at_least_one, check_draws, check_seed, option
from stepcredit.pipelines import baseline, eval_best_of_n, score, train
from stepcredit.pipelines.driver import Store
from stepcredit.runs import (
    Manifest,
    Output,
    Progress,
    hash_json,
    locked,
    read_manifest,
    worker_pool,
    write_json,
    write_text,
)
from stepcredit.training.config import TrainConfig
from stepcredit.wording import quantity

RESULTS, REPORT, SUMMARY = "comparison.json", "report.html", "README.md"
_TRIAL_DRAWS = 100
"""Bootstrap draws of a trial, whose interval nobody reads."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit compare``."""

    recipe: Path = argument("recipe of the comparison: a YAML file, or lab for the shipped one")
    out: Path = option("directory for all models, scores and results", metavar="DIR")
    root: Path = option("folder that the recipe's paths are relative to", default=Path())
    load: LoadOptions = field(default_factory=LoadOptions)
    draws: int = option("bootstrap draws over problems", default=10_000)
    jobs: int | None = option(
        "number of settings to try at the same time, each in a process with its share of the "
        "processors; default is one",
        default=None,
    )
    overwrite: bool = option("start over and replace any existing output", default=False)


def run(options: Options) -> ComparisonResult:
    """Search, train, score and evaluate what is not there yet."""
    with locked(options.out):
        return _compare(options)


def _compare(options: Options) -> ComparisonResult:
    from stepcredit.reports.comparison import comparison_markdown, render_comparison

    check_at_least_one(options, "jobs")
    check_draws(options.draws, seed=0)
    recipe = read_recipe(options.recipe, options.root)
    check_seed(recipe.seed)
    _check_files(recipe)
    work = Search(recipe, Store(options.out, overwrite=options.overwrite), options.load)
    searched = search(work, jobs=options.jobs or 1)
    result = _evaluate(options, recipe, searched)
    manifest = Manifest(
        "compare",
        {"recipe": recipe.to_json(), "draws": options.draws},
        inputs=[recipe.train, recipe.dev, recipe.test],
    )
    content = result.to_json()
    # What is there is replaced whatever it is: it only sums up the trials, each of which was checked.
    with Output(options.out / RESULTS, manifest, overwrite=True) as output, output.replacing() as results:
        write_json(results, content, named=output.path)
        pages = {REPORT: render_comparison(content), SUMMARY: comparison_markdown(content)}
        for name, page in pages.items():
            write_text(options.out / name, page)
    return result


def _check_files(recipe: Recipe) -> None:
    """Read everything, so that no fault shows only when models have been trained."""
    from stepcredit.evaluation.samples import read_joined

    data = [method.data for method in recipe.methods if method.data is not None]
    for path in [recipe.train, recipe.dev, recipe.test, *recipe.collection, *data]:
        if not path.exists():
            raise UserError("there is no such file", where=path, hint="check the recipe's paths and --root")
    for path, wanted, name in (
        (recipe.dev, recipe.choose_at, "choose_at"),
        (recipe.test, min(recipe.n), "n"),
    ):
        fewest = int(read_joined(path, {}).samples.num_responses.min())
        if fewest < wanted:
            raise UserError(
                f"has a prompt with {quantity(fewest, 'graded response')}, fewer than {name} ({wanted})",
                where=path,
                hint=f"lower {name} in the recipe, or sample more responses",
            )
    learned_from = dict.fromkeys([recipe.train, *data])
    for held_out, others in ((recipe.dev, learned_from), (recipe.test, [*learned_from, recipe.dev])):
        for path in others:
            if shared := shared_problems(read_rollouts(held_out), read_rollouts(path)):
                raise UserError(
                    f"has {quantity(len(shared), 'problem')} of {path}, first {shared[0]!r}, which makes "
                    "the comparison unfair",
                    where=held_out,
                    hint="split by problem, not by response",
                )


def _evaluate(options: Options, recipe: Recipe, searched: Mapping[str, Searched]) -> ComparisonResult:
    evaluation = eval_best_of_n.run(
        eval_best_of_n.Options(
            graded=recipe.test,
            scores=tuple(f"{name}={files.test_scores}" for name, files in searched.items()),
            dev=recipe.dev,
            dev_scores=tuple(f"{name}={files.dev_scores}" for name, files in searched.items()),
            n=recipe.n,
            weighted=(),
            draws=options.draws,
            seed=recipe.seed,
        )
    ).evaluation
    accuracy: dict[tuple[str, str | None, str | None], dict[int, tuple[float, float, float]]] = {}
    for row in evaluation.results:
        key = (row.method, row.scorer, row.aggregate)
        accuracy.setdefault(key, {})[row.n] = (row.accuracy, row.low, row.high)
    methods = []
    for method in recipe.methods:
        own, aggregate = searched[method.name], evaluation.choices[method.name].aggregate
        methods.append(
            MethodResult(
                name=method.name,
                trials=own.trials,
                chosen=own.chosen,
                aggregate=aggregate,
                accuracy=accuracy.get(("best-of-n", method.name, aggregate), {}),
                cost=_cost(recipe, method, searched),
            )
        )
    return ComparisonResult(
        out=options.out,
        methods=tuple(methods),
        references={
            name: accuracy[name, None, None]
            for name in ("pass", "majority")
            if (name, None, None) in accuracy
        },
        comparisons=[asdict(row) for row in evaluation.comparisons],
        budget=recipe.budget,
        choose_at=recipe.choose_at,
    )


def _cost(recipe: Recipe, method: ComparedMethod, searched: Mapping[str, Searched]) -> MethodCost:
    """What the method needs, by the manifests of its data and models."""
    own = searched[method.name]
    if own.chosen is None:
        return MethodCost()
    labelling = _flops(method.data)
    training = float(own.trials[own.chosen].training.get("flops", 0.0))
    search = sum(float(trial.training.get("flops", 0.0)) for trial in own.trials)
    unshared = _flops(method.data, "ledger_without_sharing") or labelling
    if method.start_from is not None:
        before = _cost(recipe, recipe.method(method.start_from), searched)
        labelling, unshared = labelling + before.labelling, unshared + before.labelling_unshared
        training, search = training + before.training, search + before.search
    return MethodCost(
        collection=sum(_flops(path) for path in recipe.collection),
        labelling=labelling,
        labelling_unshared=unshared,
        training=training,
        search=search,
    )


def _flops(path: Path | None, ledger: str = "ledger") -> float:
    manifest = None if path is None else read_manifest(path)
    return float(((manifest or {}).get(ledger) or {}).get("flops", 0.0))


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A method's trials, and the files of the chosen one."""

    trials: tuple[Trial, ...]
    chosen: int | None
    dev_scores: Path
    test_scores: Path


@dataclass(frozen=True, slots=True)
class Search:
    """What all trials share."""

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
    searched: dict[str, Searched] = {}
    _search_together(work, first, jobs, searched)
    for method in trained:
        if method.start_from is not None:
            _search_together(work, [method], jobs, searched)
    for method in methods:
        if method.train is None:
            searched[method.name] = _untrained(work, method)
    return {method.name: searched[method.name] for method in methods}


def _search_together(
    work: Search, methods: Sequence[ComparedMethod], jobs: int, searched: dict[str, Searched]
) -> None:
    """Search methods that do not depend on each other; ``searched`` grows."""
    tasks = [
        _Task(method, _initial_weights(work, method, searched), settings, config)
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
        searched[method.name] = Searched(
            trials=tuple(own), chosen=chosen, dev_scores=best / "dev.jsonl", test_scores=best / "test.jsonl"
        )


def _tried(work: Search, tasks: Sequence[_Task], jobs: int) -> Iterator[Trial]:
    """The trials in the order of the tasks."""
    if jobs == 1:
        yield from (_trial(work, task) for task in tasks)
        return
    # More processes than tasks would only leave each with fewer processors.
    with worker_pool(min(jobs, len(tasks))) as pool:
        yield from pool.map(partial(_trial, work), tasks)


def _initial_weights(work: Search, method: ComparedMethod, searched: Mapping[str, Searched]) -> str:
    if method.start_from is None:
        return work.recipe.model
    before = searched[method.start_from]
    assert before.chosen is not None, "recipes let only trained methods be started from"
    return str(Path(before.trials[before.chosen].directory) / "prm")


def _trial(work: Search, task: _Task) -> Trial:
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
            load=train.trainable(work.load),
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
    settings = {"steps": recipe.settings.get("step_rule"), "prm": recipe.model, **(method.score or {})}
    work.store.run("score", score.Options(**settings, input=source, out=out, load=work.load))


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
    best = max(rows, key=lambda row: row.accuracy)
    return best.accuracy, str(best.aggregate)

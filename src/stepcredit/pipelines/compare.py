"""A fair comparison of reward models, from one recipe.

Every method gets the same initial weights and data, and a search of equal budget over its own settings on
development problems, which the test never uses. Recorded are all trials, the test's results with paired
intervals, and what each method cost: collecting and labelling its data, and training. Run again, it goes
on from the last finished trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.errors import UserError
from stepcredit.options import argument, check_at_least_one, option
from stepcredit.pipelines import eval_best_of_n
from stepcredit.pipelines.comparison_recipe import ComparedMethod, Recipe, read_recipe
from stepcredit.pipelines.comparison_search import Search, Searched, Trial, search
from stepcredit.pipelines.driver import Store

RESULTS, REPORT, SUMMARY = "comparison.json", "report.html", "README.md"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit compare``."""

    recipe: Path = argument("recipe of the comparison: a YAML file, or lab")
    out: Path = option("directory of all models, scores and results", metavar="DIR")
    root: Path = option("folder that the recipe's paths are relative to", default=Path())
    load: LoadOptions = field(default_factory=LoadOptions)
    draws: int = option("bootstrap draws over problems", default=10_000)
    jobs: int | None = option(
        "settings that are tried at the same time, each in a process with its share of the processors; "
        "default is one",
        default=None,
    )
    overwrite: bool = option("start anew, whatever is there", default=False)


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """Floating-point operations that a method needs, by the ledgers' formula.

    Attributes:
        collection: Sampling the training responses (shared by all methods).
        labelling: Labelling their steps, each distinct prefix once.
        labelling_unshared: The same without sharing prefixes.
        training: Training the chosen model, and those that it starts from.
        search: Training all its trials.
    """

    collection: float = 0.0
    labelling: float = 0.0
    labelling_unshared: float = 0.0
    training: float = 0.0
    search: float = 0.0

    @property
    def total(self) -> float:
        """Data and training of the chosen model."""
        return self.collection + self.labelling + self.training

    @property
    def total_unshared(self) -> float:
        """The same without sharing prefixes."""
        return self.collection + self.labelling_unshared + self.training


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What became of a method.

    Attributes:
        name: As in the recipe.
        trials: All settings that were tried.
        chosen: Which of them, from 0; ``None`` for methods without training.
        aggregate: The score that stands for it, chosen on the development problems.
        accuracy: n to (accuracy, low, high) on the test problems.
        cost: What it needs.
    """

    name: str
    trials: tuple[Trial, ...]
    chosen: int | None
    aggregate: str
    accuracy: Mapping[int, tuple[float, float, float]]
    cost: MethodCost


@dataclass(frozen=True, kw_only=True)
class Result:
    """The comparison.

    Attributes:
        out: Its directory.
        methods: In the recipe's order.
        references: ``pass`` and ``majority``: n to (accuracy, low, high).
        comparisons: Paired differences between methods on the test problems.
        budget: Training runs of each trained method.
        choose_at: Number of responses at which settings were compared.
    """

    out: Path
    methods: tuple[MethodResult, ...]
    references: Mapping[str, Mapping[int, tuple[float, float, float]]]
    comparisons: list[dict[str, Any]]
    budget: int
    choose_at: int

    def to_json(self) -> dict[str, Any]:
        """Everything, with totals and relative costs of the methods; a missing end of an interval is null."""
        from stepcredit.evaluation.results import plain

        content: dict[str, Any] = plain(asdict(self))
        content["out"] = str(self.out)
        unit = self.unit_cost
        for method, values in zip(self.methods, content["methods"], strict=True):
            values["cost"] |= {
                "total": method.cost.total,
                "total_unshared": method.cost.total_unshared,
                "relative": method.cost.total / unit if unit else None,
                "relative_unshared": method.cost.total_unshared / unit if unit else None,
            }
        return content

    @property
    def unit_cost(self) -> float:
        """Cost of the first trained method, which the others are told in."""
        return next((method.cost.total for method in self.methods if method.chosen is not None), 0.0)

    def to_text(self) -> str:
        """Accuracy and cost of each method."""
        sizes = sorted({n for method in self.methods for n in method.accuracy})
        width = max(len(name) for name in [*self.references, *(method.name for method in self.methods)])
        lines = [f"{'':<{width}}" + "".join(f"{f'@{n}':>8}" for n in sizes) + "      cost"]
        for name, accuracy in self.references.items():
            lines.append(f"{name:<{width}}" + _cells(accuracy, sizes))
        for method in self.methods:
            relative = (
                method.cost.total / self.unit_cost if self.unit_cost and method.chosen is not None else 0
            )
            told = f"{relative:>9.2f}x" if relative else f"{'':>10}"
            lines.append(f"{method.name:<{width}}" + _cells(method.accuracy, sizes) + told)
        lines.append(
            f"{self.budget} settings of each trained method compared at @{self.choose_at} on development"
        )
        return "\n".join([*lines, f"report: {self.out / REPORT}"])


def _cells(accuracy: Mapping[int, tuple[float, float, float]], sizes: list[int]) -> str:
    return "".join(f"{accuracy[n][0]:>8.3f}" if n in accuracy else f"{'':>8}" for n in sizes)


def run(options: Options) -> Result:
    """Search, train, score and evaluate what is not there yet.

    Raises:
        UserError: A mistake in the recipe or its files.
    """
    from stepcredit.runs import locked

    with locked(options.out):
        return _compare(options)


def _compare(options: Options) -> Result:
    from stepcredit.reports.comparison import comparison_markdown, render_comparison
    from stepcredit.runs import Manifest, Output, atomic_path, write_json

    recipe = read_recipe(options.recipe, options.root)
    _check_files(recipe)
    check_at_least_one(options, "jobs")
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
        write_json(results, content)
        pages = {REPORT: render_comparison(content), SUMMARY: comparison_markdown(content)}
        for name, page in pages.items():
            with atomic_path(options.out / name) as temporary:
                temporary.write_text(page, encoding="utf-8")
    return result


def _check_files(recipe: Recipe) -> None:
    files = [recipe.train, recipe.dev, recipe.test, *recipe.collection]
    for path in [*files, *(method.data for method in recipe.methods if method.data is not None)]:
        if not path.exists():
            raise UserError("there is no such file", where=path, hint="check the recipe's paths and --root")


def _evaluate(options: Options, recipe: Recipe, searched: Mapping[str, Searched]) -> Result:
    evaluation = eval_best_of_n.run(
        eval_best_of_n.Options(
            graded=recipe.test,
            scores=tuple(f"{name}={found.test_scores}" for name, found in searched.items()),
            dev=recipe.dev,
            dev_scores=tuple(f"{name}={found.dev_scores}" for name, found in searched.items()),
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
        found, aggregate = searched[method.name], evaluation.choices[method.name].aggregate
        methods.append(
            MethodResult(
                name=method.name,
                trials=found.trials,
                chosen=found.chosen,
                aggregate=aggregate,
                accuracy=accuracy.get(("best-of-n", method.name, aggregate), {}),
                cost=_cost(recipe, method, searched),
            )
        )
    return Result(
        out=options.out,
        methods=tuple(methods),
        references={
            name: accuracy[name, None, None]
            for name in ("pass", "majority")
            if (name, None, None) in accuracy
        },
        comparisons=[asdict(each) for each in evaluation.comparisons],
        budget=recipe.budget,
        choose_at=recipe.choose_at,
    )


def _cost(recipe: Recipe, method: ComparedMethod, searched: Mapping[str, Searched]) -> MethodCost:
    """What the method needs, by the manifests of its data and models."""
    found = searched[method.name]
    if found.chosen is None:
        return MethodCost()
    labelling = _flops(method.data)
    training = float(found.trials[found.chosen].training.get("flops", 0.0))
    search = sum(float(trial.training.get("flops", 0.0)) for trial in found.trials)
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
    from stepcredit.runs import read_manifest

    manifest = None if path is None else read_manifest(path)
    return float(((manifest or {}).get(ledger) or {}).get("flops", 0.0))

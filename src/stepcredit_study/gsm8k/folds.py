"""Recorded GSM8K solutions, by cross-validation: every problem is tested once, by a model that never saw it.

Purpose: does training on right and wrong order recorded solutions better than shortness, and than the
untrained model's log-probability? One split of 160 test problems left an interval too wide to say. Here
five folds test all problems, the rate of each method is chosen inside each fold on development problems,
solutions are compared only with those of the same generator in the same fold, and length is regressed out.

What differs from the paper: a small model, and recorded solutions of four models (one each per problem)
instead of its own.

Run: python -m stepcredit_study.gsm8k.folds --solutions SOLUTIONS.jsonl --model DIR --out DIR
It goes on where it was stopped.
"""

from __future__ import annotations

import random
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.pipelines import grade, score, train
from stepcredit.pipelines.driver import Store
from stepcredit.runs import write_json
from stepcredit.training.config import TrainConfig
from stepcredit_study.frame.scale import fast_precision
from stepcredit_study.frame.world import reference_scores
from stepcredit_study.gsm8k.fold_results import Fold, development_auc, evaluate

_SEED: Final = 0
METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "implicit-ce": {"objective": "ce", "beta": 0.1},
    "outcome-head": {"family": "value-head", "objective": "ce"},
}
TRAINING: Final = TrainConfig(
    batch_size=32, epochs=1.0, step_rule="newline", lora_rank=32, tokens_per_forward=2048, eval_every=14
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the recorded solutions and the model are, and how much is tried.

    Attributes:
        solutions: Rollouts of GSM8K problems, with ``correct`` and ``policy``.
        model: Initial weights and reference.
        folds: Into how many the problems are divided, at least 2.
        dev: Development problems of each fold, out of those that are not tested in it.
        rates: Learning rates, of which each fold chooses one for each method.
    """

    solutions: Path
    model: Path
    out: Path
    folds: int = 5
    dev: int = 60
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    training: TrainConfig = field(default_factory=lambda: replace(TRAINING, precision=fast_precision()))


def run(options: Options) -> dict[str, Any]:
    """All folds, and what they say together; also in ``out/results.json``."""
    store = Store(options.out / "store")
    graded = store.make(
        "grade",
        "solutions",
        grade.Options(rollouts=options.solutions, grader="numeric", out=Path(), regrade=True),
    )
    problems = sorted({rollout.prompt_id for rollout in read_rollouts(graded)})
    if options.folds < 2 or len(problems) < options.folds + options.dev:
        raise UserError(
            f"{len(problems)} problems are too few for {options.folds} folds and {options.dev} development "
            "problems",
            where=options.solutions,
            hint="use 2 folds or more, and fewer development problems",
        )
    random.Random(_SEED).shuffle(problems)
    folds = [_fold(options, store, graded, problems, number) for number in range(options.folds)]
    results = {"folds": [fold.chosen for fold in folds], **evaluate(folds)}
    write_json(options.out / "results.json", results)
    return results


def _fold(options: Options, store: Store, graded: Path, problems: list[str], number: int) -> Fold:
    """Train, choose and score in one fold."""
    test = problems[number :: options.folds]
    others = [problem for problem in problems if problem not in set(test)]
    parts = {"test": test, "dev": others[: options.dev], "train": others[options.dev :]}
    files = {
        name: store.write(
            store.path("part", name, {"problems": chosen, "of": graded.name}, ".jsonl"),
            partial(_write_part, graded, frozenset(chosen)),
        )
        for name, chosen in parts.items()
    }
    reference = {
        name: reference_scores(store, files[name], options.model, steps="newline") for name in ("dev", "test")
    }
    chosen: dict[str, Any] = {}
    scores: dict[str, Path] = {}
    for method, settings in METHODS.items():
        tried: dict[float, tuple[float, Path]] = {}
        for rate in options.rates:
            config = replace(options.training, **settings, learning_rate=rate)
            model = _train(options, store, method, files, config)
            on_dev = _scores(store, method, files["dev"], model)
            tried[rate] = (development_auc(files["dev"], reference["dev"], on_dev), model)
        rate = max(tried, key=lambda learning_rate: tried[learning_rate][0])
        chosen[method] = {"rate": rate, "tried": {f"{value:g}": auc for value, (auc, _) in tried.items()}}
        scores[method] = _scores(store, method, files["test"], tried[rate][1])
    return Fold(files["test"], reference["test"], scores, chosen)


def _write_part(graded: Path, chosen: frozenset[str], out: Path) -> None:
    rows = (rollout for rollout in read_rollouts(graded) if rollout.prompt_id in chosen)
    write_rows(out, map(rollout_to_json, rows))


def _train(
    options: Options, store: Store, method: str, files: Mapping[str, Path], config: TrainConfig
) -> Path:
    wanted = train.Options(
        graded=files["train"],
        dev=files["dev"],
        model=str(options.model),
        out=Path(),
        cache=store.root / "reference",
        config=config,
    )
    return store.make("train", method, wanted, suffix="")


def _scores(store: Store, method: str, data: Path, model: Path) -> Path:
    # Only an implicit model has a reference, whose log-probabilities the trainings share.
    cache = store.root / "reference" if method.startswith("implicit") else None
    wanted = score.Options(input=data, prm=str(model), out=Path(), cache=cache)
    return store.make("score", method, wanted)


def main() -> None:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    for name in ("solutions", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    run(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()

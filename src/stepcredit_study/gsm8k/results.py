"""What the recorded-GSM8K run found: outcome AUC with its controls, picking among four, and a heat map."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.data import read_rollouts, read_scores
from stepcredit.evaluation.localisation import clustered_auc
from stepcredit.pipelines import eval_best_of_n
from stepcredit.pipelines.demo import SCORES
from stepcredit.reports.heatmap import render_heatmap
from stepcredit.runs import manifest_path, read_manifest, write_json, write_text
from stepcredit.stats import Interval, ProblemBootstrap, auc
from stepcredit.types import Rollout

_SHOWN = 24


def development(prm: Path) -> dict[str, Any]:
    """Which weights were kept, and what the development problems said of them."""
    manifest = read_manifest(prm) or {}
    return {"kept_step": manifest["kept_step"], **manifest["heldout"]}


def evaluate(out: Path) -> dict[str, Any]:
    """Outcome AUC and accuracy of picking among four solutions, as JSON-able values."""
    test = out / "test"
    rollouts = list(read_rollouts(test / "graded.jsonl"))
    return {
        "outcome_auc": _outcome_aucs(rollouts, _score_columns(rollouts, test)),
        "best_of_n": _best_of_n(out),
    }


def _best_of_n(out: Path) -> dict[str, Any]:
    """Accuracy of picking among four solutions; choices are made on the development problems."""
    named = [
        tuple(f"{name}={out / part / file}" for name, file in SCORES.items()) for part in ("test", "dev")
    ]
    options = eval_best_of_n.Options(
        graded=out / "test" / "graded.jsonl",
        scores=named[0],
        dev=out / "dev" / "graded.jsonl",
        dev_scores=named[1],
        n=(1, 2, 4),
    )
    return eval_best_of_n.run(options).evaluation.to_json()


def _score_columns(rollouts: list[Rollout], folder: Path) -> dict[str, NDArray[np.float64]]:
    """Response-level scores of each method, and the control that short is right."""
    columns = {"shortness": -np.array([float(len(rollout.response)) for rollout in rollouts])}
    for name, file in SCORES.items():
        scores = {score.id: score for score in read_scores(folder / file)}
        for aggregate in ("sum", "min", "mean"):
            values = [scores[rollout.id].aggregates[aggregate] for rollout in rollouts]
            columns[f"{name}/{aggregate}"] = np.array(values)
    return columns


def _outcome_aucs(
    rollouts: list[Rollout], columns: dict[str, NDArray[np.float64]]
) -> dict[str, dict[str, Any]]:
    """AUC of right against wrong solutions: over all, within each policy, and within problems."""
    right = np.array([rollout.correct is True for rollout in rollouts])
    problems = {rollout.prompt_id: None for rollout in rollouts}
    index = {problem: number for number, problem in enumerate(problems)}
    clusters = np.array([index[rollout.prompt_id] for rollout in rollouts])
    policies = np.array([rollout.policy or "" for rollout in rollouts])
    bootstrap = ProblemBootstrap(len(problems))
    rows: dict[str, dict[str, Any]] = {}
    for name, values in columns.items():
        row = {"all": _as_json(clustered_auc(values, right, ~right, clusters, bootstrap))}
        for policy in sorted(set(policies)):
            here = policies == policy
            interval = clustered_auc(values, right & here, ~right & here, clusters, bootstrap)
            row[f"within {policy}"] = _as_json(interval)
        row["within problems"] = _as_json(_within_problems(values, right, clusters, bootstrap))
        rows[name] = row
    return rows


def _within_problems(
    values: NDArray[np.float64],
    right: NDArray[np.bool_],
    clusters: NDArray[np.int64],
    bootstrap: ProblemBootstrap,
) -> Interval:
    """Share of (right, wrong) pairs of one problem that are in order, each problem counted once."""
    shares = np.array(
        [
            auc(values[clusters == problem], right[clusters == problem])
            for problem in range(clusters.max() + 1)
        ]
    )
    mixed = ~np.isnan(shares)
    return bootstrap.ratio_interval(np.where(mixed, shares, 0.0), mixed.astype(np.float64))


def _as_json(interval: Interval) -> dict[str, float] | None:
    """``None`` where there are not both right and wrong solutions."""
    if np.isnan(interval.estimate):
        return None
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def publish(results: dict[str, Any], run: Path, out: Path, model: str) -> None:
    """Keep results, manifests and the command; no problem, solution or weight is copied."""
    figures = {name: value for name, value in results["best_of_n"].items() if name != "failures"}
    write_json(out / "results.json", {**results, "best_of_n": figures})
    manifest = json.loads(manifest_path(run / "prm").read_text(encoding="utf-8"))
    manifest["inputs"] = {Path(path).name: digest for path, digest in manifest["inputs"].items()}
    write_json(out / "training-manifest.json", manifest)
    log = (run / "prm" / "train_log.jsonl").read_text(encoding="utf-8")
    (out / "train_log.jsonl").write_text(log, encoding="utf-8")
    command = "python -m stepcredit_study.gsm8k.recorded --solutions gsm8k_model_solutions.jsonl "
    command += f"--model {shlex.quote(model)} --out runs/gsm8k --publish {shlex.quote(str(out))}"
    (out / "README.md").write_text(_readme(command, results), encoding="utf-8")


def write_heat_map(out: Path) -> None:
    """Solutions of the first test problems, each step coloured by its reward; stays beside the run."""
    directory = out / "test"
    scores = list(read_scores(directory / "scores.jsonl"))[:_SHOWN]
    rollouts = list(read_rollouts(directory / "graded.jsonl"))[:_SHOWN]
    page = render_heatmap(rollouts, scores, title="Recorded GSM8K solutions")
    write_text(out / "heat-map.html", page)


def _readme(command: str, results: dict[str, Any]) -> str:
    """The results as a page."""
    development, sizes = results["development"], results["problems"]
    chosen = {scorer: choice["aggregate"] for scorer, choice in results["best_of_n"]["choices"].items()}
    shown = dict.fromkeys(("min", "sum", "mean", *chosen.values()))
    listed = ", ".join(f"`{aggregate}` for {scorer}" for scorer, aggregate in chosen.items())
    lines = [
        "# Recorded GSM8K solutions",
        "",
        "A 135M-parameter language model, trained by CE on whether recorded solutions ended in the right "
        "answer.",
        f"Of its checkpoints, step {development['kept_step']} was chosen by the outcome AUC of "
        f"{sizes['dev']} development problems ({development['auc']:.3f}); so were the aggregates by which "
        f"scorers are compared ({listed}). Intervals are 95%, by bootstrap over the "
        f"{sizes['test']} test problems.",
        "",
        "```",
        command,
        "```",
        "",
        "## Outcome AUC: right against wrong solutions",
        "",
    ]
    aucs = results["outcome_auc"]
    kinds = list(next(iter(aucs.values())))
    lines += [f"| score | {' | '.join(kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    for name, row in aucs.items():
        cells = ["-" if row[kind] is None else _cell(*row[kind].values()) for kind in kinds]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Picking among four solutions", "", "| method | n | accuracy |", "| --- | --- | --- |"]
    for row in results["best_of_n"]["results"]:
        if row["method"] in ("pass", "majority") or (
            row["method"] in ("best-of-n", "weighted-sigmoid") and row["aggregate"] in shown
        ):
            parts = (row["method"], row["scorer"], row["aggregate"])
            label = "/".join(part for part in parts if part)
            lines.append(f"| {label} | {row['n']} | {_cell(row['accuracy'], row['low'], row['high'])} |")
    return "\n".join(lines) + "\n"


def _cell(estimate: float, low: float, high: float) -> str:
    return f"{estimate:.3f} ({low:.2f}, {high:.2f})"

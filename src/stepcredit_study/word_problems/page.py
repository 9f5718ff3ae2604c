"""The study's results as a page, and the small files that are kept beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stepcredit.data import read_rollouts, read_scores
from stepcredit.reports.heatmap import render_heatmap
from stepcredit.runs import write_json, write_text
from stepcredit_study.word_problems.claims import PRIMARY
from stepcredit_study.word_problems.scale import SCALES, sizes_changed
from stepcredit_study.word_problems.study import RESULTS, Study
from stepcredit_study.word_problems.verdicts import (
    Judged,
    factor_of,
    in_words,
    judge,
    judge_costs,
    verdict_cells,
)

_SHOWN = 12
_ABSENT = "–"
_TITLES = {"word-problems": "# Word problems", "gsm8k": "# GSM8K"}


def page(results: Mapping[str, Any]) -> str:
    """Everything that was measured, as Markdown."""
    lines = [
        _TITLES[results["source"]],
        "",
        "A language model writes solutions of grade-school word problems, and reward models judge them. The "
        "measures, the problems and the data on which choices are made were "
        "[decided beforehand](../../preregistration.md).",
        "",
        "```sh",
        _command(results),
        "```",
        "",
        *_smaller(results),
        *_missing(results),
        *_heat_maps(results),
        *_policies(results),
        *_choices(results),
    ]
    if results.get("operations"):
        lines += ("## Operations", "", *_verdicts(judge_costs(results)))
    for test_set in results.get("outcomes", {}):
        lines += _test_set(results, test_set)
    return "\n".join(lines) + "\n"


def preregistered(results: Mapping[str, Any], link: str) -> str:
    """A section on the outcomes that were decided beforehand, as Markdown; empty where none was measured.

    Args:
        link: To the page of all results.
    """
    cells = verdict_cells(results)
    rows = [
        f"| {claim.number} | {claim.text} | {cells[claim.number]} |"
        for claim in PRIMARY
        if claim.number in cells
    ]
    if not rows:
        return ""
    head = [
        "## Word problems: what was decided beforehand",
        "",
        "The primary outcomes with a real language model, on templates of problems that reward models were "
        f"trained on (*known*) and on others (*new*): [tables]({link}), [decisions](preregistration.md). "
        "Differences are of AUCs or of shares of problems; intervals are bootstraps over problems.",
        "",
        "|  | claim | verdict |",
        "| --- | --- | --- |",
    ]
    return "\n".join((*head, *rows))


def _command(results: Mapping[str, Any]) -> str:
    sizes = "".join(f" --size {name}={value}" for name, value in sizes_changed(results["scale"]).items())
    return f"stepcredit reproduce {results['source']} --scale {results['scale']['name']}{sizes} --model MODEL"


def publish(study: Study, folder: Path) -> None:
    """Write the page, the results, the learning curves and a dozen coloured responses."""
    folder.mkdir(parents=True, exist_ok=True)
    results = study.results()
    write_json(folder / RESULTS, results)
    write_text(folder / "README.md", page(results))
    curve = study.policies / "training.jsonl"
    if curve.exists():
        shutil.copyfile(curve, folder / "fine-tuning.jsonl")
    for method in study.chosen:
        model = study.models(method)[0]
        shutil.copyfile(model / "train_log.jsonl", folder / f"{method}-training.jsonl")
        _write_heat_maps(study, method, model, folder)


def _write_heat_maps(study: Study, method: str, model: Path, folder: Path) -> None:
    for templates in study.source.test_sets:
        blocks = study.blocks.get((templates, "middle"))
        if not blocks:
            continue
        scores = {score.id: score for score in read_scores(study.world.score(blocks[0].distinct, model))}
        shown: dict[str, Any] = {}
        for rollout in read_rollouts(blocks[0].distinct):
            shown.setdefault(rollout.prompt_id, rollout)
        rollouts = list(shown.values())[:_SHOWN]
        title = f"{method}, {templates}"
        html = render_heatmap(rollouts, [scores[rollout.id] for rollout in rollouts], title=title)
        write_text(folder / _heat_map(method, templates), html)


def _heat_map(method: str, templates: str) -> str:
    """Name of the file with a method's coloured responses."""
    return f"{method}-{templates}.html"


def _smaller(results: Mapping[str, Any]) -> Iterator[str]:
    """Sizes that differ from those of the scale."""
    scale = results["scale"]
    changed = sizes_changed(scale)
    if changed:
        usual = SCALES[scale["name"]]
        words = ", ".join(f"{name} {value} ({getattr(usual, name)})" for name, value in changed.items())
        yield from (f"Sizes that differ from the scale's own, which stand in brackets: {words}.", "")


def _missing(results: Mapping[str, Any]) -> Iterator[str]:
    """What the run's sizes ask for and it has not done."""
    scale, outcomes = results["scale"], results.get("outcomes", {})
    absent = [f"`{method}`" for method in scale["methods"] if method not in results.get("chosen", {})]
    for policy in ("middle", "weak", "strong"):
        wanted = scale["test_problems" if policy == "middle" else "other_test_problems"]
        for templates in results["test sets"]:
            there = outcomes.get(f"{templates}/{policy}", {}).get("problems", 0)
            if there < wanted:
                absent.append(f"{wanted - there} of {wanted} problems ({templates}, {policy} policy)")
    if absent:
        yield from (f"Not run: {', '.join(absent)}.", "")


def _heat_maps(results: Mapping[str, Any]) -> Iterator[str]:
    """Links to the coloured responses beside the page."""
    links = [
        f"[{method}, {templates}]({_heat_map(method, templates)})"
        for method in results.get("chosen", {})
        for templates in results["test sets"]
        if f"{templates}/middle" in results.get("outcomes", {})
    ]
    if links:
        yield from (
            f"A dozen responses to test problems, each step coloured by its reward: {', '.join(links)}.",
            "",
        )


def _policies(results: Mapping[str, Any]) -> Iterator[str]:
    policies = results.get("policies")
    if policies is None:
        return
    yield from (
        "## Policies",
        "",
        "| steps of fine-tuning | pass@1 on development problems | |",
        "| --- | --- | --- |",
    )
    names = {policies[name]: name for name in ("weak", "strong", "middle")}
    for length, value in policies["pass_at_1"].items():
        yield f"| {length} | {value:.3f} | {names.get(int(length), '')} |"
    yield ""


def _choices(results: Mapping[str, Any]) -> Iterator[str]:
    if not results.get("chosen"):
        return
    yield from (
        "## Choices on development problems",
        "",
        "AUC within a problem, length regressed out, by the best of four aggregates. Trained in "
        f"{results['scale']['training'].get('precision', 'float32')}.",
        "",
        "| method | tried (AUC) | kept | operations, times CE's |",
        "| --- | --- | --- | --- |",
    )
    for method, chosen in results["chosen"].items():
        tried = ", ".join(f"{_settings(row)} ({row['auc']:.3f})" for row in chosen["tried"])
        factor = factor_of(results, method)
        times = _ABSENT if factor is None else f"{factor:.1f}"
        yield f"| {method} | {tried} | {_settings(chosen['settings'])}, {chosen['aggregate']} | {times} |"
    yield ""


def _settings(row: Mapping[str, float]) -> str:
    words = {"learning_rate": "rate", "beta": "beta"}
    return ", ".join(f"{words[name]} {row[name]:g}" for name in words if name in row)


def _test_set(results: Mapping[str, Any], test_set: str) -> Iterator[str]:
    content = results["outcomes"][test_set]
    templates, policy = test_set.split("/")
    largest = max(content["majority"], key=int)
    majority = in_words(content["majority"][largest])
    slip_share = content["wrong responses with a slip"]
    templates_of = f" of {content['templates']} templates" if content["templates"] else ""
    yield from (
        f"## {templates.capitalize()}: {policy} policy",
        "",
        f"{content['problems']} problems{templates_of}, {content['responses']:,} responses "
        f"({content['distinct']:,} distinct); {content['right']:,} are right, to "
        f"{content['problems with a right response']} problems. "
        f"A single response is right for {in_words(content['pass@1'])}, the majority of {largest} for "
        f"{majority}, an oracle for {content['oracle'][largest]:.3f}. Of the distinct "
        f"wrong responses {_ABSENT if slip_share is None else f'{slip_share:.0%}'} hold an arithmetic slip. "
        "A step's position alone, later ones first, finds first slips with AUC "
        f"{in_words(content['first slips by position'])}. This and the last two columns were not decided "
        "beforehand.",
        "",
        f"| method | AUC within a problem, length regressed out | best-of-{largest} | minus majority "
        "| weighted vote minus plain | AUC of first slips | with a step's length regressed out "
        "| at the same position |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    )
    for method, row in content["methods"].items():
        kind = "raw" if method == "shortness" else "length regressed out"
        best, vote = row["best-of-n"][largest], row["weighted vote"].get(largest, {})
        cells = (
            row["auc"][kind],
            best["accuracy"],
            best["minus majority"],
            vote.get("minus plain"),
            *(
                row.get("slips", {}).get(name)
                for name in ("auc", "length regressed out", "at the same position")
            ),
        )
        yield f"| {method} | {' | '.join(map(in_words, cells))} |"
    yield ""
    yield from _variants(content["methods"])
    yield from _verdicts(judge(content))


def _variants(methods: Mapping[str, Any]) -> Iterator[str]:
    """Models on less or other data, and without the reference."""
    rows = {
        f"{method}, {name}": row
        for method, results in methods.items()
        for name, row in results.get("variants", {}).items()
    }
    if rows:
        yield from (
            "| variant | AUC within a problem, length regressed out | minus usual | minus reference |",
            "| --- | --- | --- | --- |",
        )
        for name, row in rows.items():
            cells = row["auc"], row["minus usual"], row["minus reference"]
            yield f"| {name} | {' | '.join(map(in_words, cells))} |"
        yield ""


def _verdicts(claims: Iterable[Judged]) -> Iterator[str]:
    yield from ("| | claim | verdict | here |", "| --- | --- | --- | --- |")
    for judged in claims:
        here = "; ".join(
            f"{name}: {in_words(interval)}" for name, interval in judged.here.items() if interval
        )
        claim = judged.claim
        yield f"| {claim.number} | {claim.text} | **{judged.verdict}** | {here or _ABSENT} |"
    yield ""

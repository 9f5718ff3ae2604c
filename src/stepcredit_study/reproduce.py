"""Repeat the paper's findings, one experiment per finding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import CommandResult, argument, arguments_of, check_at_least_one, option
from stepcredit.runs import Manifest, locked, manifest_path, run_facts, write_json

if TYPE_CHECKING:
    from stepcredit_study.frame.experiment import Experiment
    from stepcredit_study.frame.planning import PlannedCommand
    from stepcredit_study.frame.scale import Scale
    from stepcredit_study.frame.seeds import Measurement
    from stepcredit_study.pages.finding import Finding

NAMES = (
    "main",
    "cost",
    "voting",
    "instructions",
    "responses",
    "one-response",
    "relevance",
    "diversity",
    "step-labels",
    "reference-free",
    "inference-cost",
    "policy",
    "theory",
    "critics",
    "search",
    "rl",
    "positive-control",
    "kto",
)
ALL = "all"
GSM8K = "gsm8k"
STUDIES = {"word-problems": "full", GSM8K: "gsm8k"}
"""Worlds of their own, with a real language model; to their usual scale."""
_MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which findings, at which scale."""

    names: tuple[str, ...] = argument(
        f"experiments: {', '.join(NAMES)}; or all; or one with a real language model: {', '.join(STUDIES)}",
        many=True,
    )
    scale: str | None = option(
        "lab (the default), lab2 (the second lab) or paper (models and data for a node of 8 GPUs); "
        "word-problems: full (the default) or tiny; gsm8k: gsm8k (the default) or tiny",
        default=None,
    )
    model: str | None = option(
        "word-problems, gsm8k: language model that learns to solve them, a directory or hub id", default=None
    )
    data: Path | None = option(
        "gsm8k: folder that contains gsm8k_train.jsonl and gsm8k_test.jsonl", default=None, metavar="DIR"
    )
    minutes: float | None = option(
        "word-problems, gsm8k: start no new stage after this many minutes", default=None
    )
    quick: bool = option("small sizes and fewer seeds, to check that everything runs", default=False)
    seeds: int | None = option(
        "number of seeds, each with new data and new training; default is the scale's", default=None
    )
    sizes: tuple[str, ...] = option(
        "change one size of the scale, e.g. train_prompts=200 (may be repeated)",
        flag="--size",
        default=(),
        metavar="NAME=N",
    )
    jobs: int | None = option("number of processes; default is one per processor", default=None)
    out: Path = option("folder for all outputs", default=Path("runs/reproduce"), metavar="DIR")
    publish: Path | None = option(
        "also write tables, plots and verdicts to this folder", default=None, metavar="DIR"
    )
    dry_run: bool = option("print the commands and what they would need, and run nothing", default=False)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What each experiment found."""

    out: Path
    findings: Sequence[Finding]

    def to_json(self) -> Any:
        """Experiment to tables and verdicts."""
        return {"out": str(self.out), "findings": [asdict(finding) for finding in self.findings]}

    def to_text(self) -> str:
        """Tables and verdicts."""
        from stepcredit_study.pages.text import finding_text

        return "\n\n".join([*map(finding_text, self.findings), f"report: {self.out / 'report.html'}"])


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What would run, in order, each command once."""

    commands: Sequence[PlannedCommand]
    is_lab: bool

    def to_json(self) -> Any:
        """The commands, with operations and hours where they are known."""
        return [command.to_json() for command in self.commands]

    def to_text(self) -> str:
        """One line per command, and the sum."""
        from stepcredit_study.frame.planning import total_line

        heading = (
            "# prompts/ and policies/ come with the package; a run writes them and does the rest in itself"
            if self.is_lab
            else "# run where the recipe's files of prompts lie"
        )
        return "\n".join(
            [heading, *(command.to_text() for command in self.commands), total_line(self.commands)]
        )


def run(options: Options) -> CommandResult:
    """Measure what is not there yet, and conclude each experiment when all of its seeds are there.

    Raises:
        UserError: There is no such experiment or scale, or a stage failed.
    """
    from stepcredit_study.frame.experiment import load_experiment
    from stepcredit_study.frame.planning import plan
    from stepcredit_study.frame.running import Stage, run_stages

    check_at_least_one(options, "jobs", "seeds")
    for name in STUDIES:
        if name in options.names:
            return _study(options, name)
    if (options.model, options.data, options.minutes) != (None, None, None):
        raise UserError(f"--model, --data and --minutes are for {', '.join(STUDIES)}", hint="leave them out")
    scale = _scale(options)
    modules = {name: module_of(name) for name in _names(options)}
    experiments = {name: load_experiment(module) for name, module in modules.items()}
    if not scale.is_lab:
        experiments = {
            name: experiment for name, experiment in experiments.items() if not experiment.lab_only
        }
        if not experiments:
            raise UserError("needs the truth of every step, which only a lab has", where=options.names[0])
    if options.dry_run:
        commands = plan(list(experiments.values()), scale, options.out)
        return DryRun(commands=commands, is_lab=scale.is_lab)
    findings: dict[str, Finding] = {}

    def conclude(name: str, numbers: Sequence[Measurement]) -> None:
        findings[name] = _conclude(experiments[name], numbers, options, scale)

    stages = [
        Stage(module=modules[name], scale=scale, seed=seed, out=options.out)
        for name in experiments
        for seed in range(scale.seeds)
    ]
    with locked(options.out):
        run_stages(stages, jobs=options.jobs or (os.cpu_count() or 1), finished=conclude)
    return Result(out=options.out, findings=[findings[name] for name in experiments])


def module_of(name: str) -> str:
    """Where the experiment of a name lies."""
    return f"stepcredit_study.claims.{name.replace('-', '_')}"


def _conclude(
    experiment: Experiment, numbers: Sequence[Measurement], options: Options, scale: Scale
) -> Finding:
    """Write the finding and its manifest, and the report of all findings that lie in the run's folder."""
    from stepcredit_study.frame.seeds import Seeds
    from stepcredit_study.pages.findings import read_findings, write_finding, write_report

    settings = _settings(replace(options, names=(experiment.name,)), scale)
    finding = replace(experiment.conclude(Seeds(numbers), scale), settings=settings | run_facts())
    measured = options.out / "measurements" / finding.name
    manifest = Manifest("reproduce", settings, inputs=sorted(measured.glob("*.json")))
    manifest.count("seeds", len(numbers))
    for parent in (options.out, options.publish):
        if parent is not None:
            folder = parent / finding.name
            write_finding(finding, folder, numbers)
            write_json(manifest_path(folder), manifest.to_json())
    write_report(read_findings(options.out, NAMES), options.out / "report.html")
    return finding


def _names(options: Options) -> list[str]:
    for name in options.names:
        if name not in (*NAMES, ALL):
            raise UserError(f"there is no experiment {name!r}", hint=f"use {', '.join(NAMES)} or all")
    return list(NAMES) if ALL in options.names or not options.names else list(dict.fromkeys(options.names))


def _study(options: Options, name: str) -> CommandResult:
    from stepcredit_study.word_problems.command import reproduce, source_of
    from stepcredit_study.word_problems.plan import plan_study
    from stepcredit_study.word_problems.scale import read_word_scale
    from stepcredit_study.word_problems.sources import Gsm8k, Templates

    if len(options.names) > 1:
        raise UserError(
            f"{name} cannot be combined with other experiments", hint="run it in a separate command"
        )
    for flag, is_given in (
        ("--quick", options.quick),
        ("--seeds", options.seeds is not None),
        ("--jobs", options.jobs is not None),
        ("--data", options.data is not None and name != GSM8K),
    ):
        if is_given:
            raise UserError(f"{name} does not have it", where=flag, hint="see --scale and --size")
    if options.minutes is not None and not options.minutes > 0:
        raise UserError(f"must be more than 0, got {options.minutes:g}", where="--minutes")
    scale = read_word_scale(options.scale or STUDIES[name], _sizes(options))
    if options.dry_run:
        return plan_study(Gsm8k if name == GSM8K else Templates, scale)
    if options.model is None:
        raise UserError(
            "--model is missing",
            where=name,
            hint="name a small language model, such as HuggingFaceTB/SmolLM2-135M-Instruct",
        )
    if name == GSM8K and options.data is None:
        raise UserError(
            "--data is missing", where=name, hint="name the folder of gsm8k_train.jsonl and gsm8k_test.jsonl"
        )
    return reproduce(
        source_of(options.data),
        options.model,
        options.out,
        scale,
        minutes=options.minutes,
        publish_to=options.publish,
    )


def _sizes(options: Options) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for text in options.sizes:
        name, _, value = text.partition("=")
        if not value.isdigit():
            raise UserError(f"{text!r} is not a size", where="--size", hint="write it as train_prompts=200")
        if name in sizes:
            raise UserError(f"{name} is given twice", where="--size", hint="keep one of them")
        sizes[name] = int(value)
    return sizes


def _scale(options: Options) -> Scale:
    from stepcredit_study.frame.scale import read_scale, resized

    scale = resized(read_scale(options.scale or "lab", quick=options.quick), _sizes(options))
    if options.seeds is not None:
        if options.seeds > _MOST_SEEDS:
            raise UserError(f"{options.seeds} is more than {_MOST_SEEDS}", where="--seeds")
        scale = replace(scale, seeds=options.seeds)
    return scale


def _settings(options: Options, scale: Scale) -> dict[str, object]:
    shown = replace(options, publish=None, jobs=None)
    return {"command": "stepcredit reproduce " + " ".join(arguments_of(shown)), "scale": asdict(scale)}

"""Train a reward model on graded rollouts."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import settings_hash
from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.data import read_rollouts
from stepcredit.data.sources import check_readable
from stepcredit.errors import DataError, UserError
from stepcredit.options import OutputResult, argument, check_seed, option
from stepcredit.runs import Ledger, Manifest, Output, check_keeps_inputs, check_output, read_manifest, warn
from stepcredit.training.config import TrainConfig
from stepcredit.training.counts import HELDOUT, left_out
from stepcredit.training.plan import Plan, PlanOptions
from stepcredit.wording import quantity

if TYPE_CHECKING:
    from stepcredit.training.fitting import TrainedModel
    from stepcredit.training.sources import Sources

_HIGH_LEARNING_RATE = 0.02
"""Ten times what adapters of small models bear."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train on, from which weights, and how."""

    graded: Path = argument("graded rollouts (JSON Lines, Parquet, CSV)")
    model: str = option("initial weights: a directory or hub id", metavar="MODEL")
    out: Path = option("directory of the trained reward model", metavar="DIR")
    dev: Path | None = option(
        "graded rollouts of other prompts, for held-out metrics and for choosing the weights to keep",
        default=None,
    )
    reference: str | None = option(
        "reference model; default is the initial weights (including an adapter), or the "
        "reference of the PRM that training starts from",
        default=None,
    )
    config: TrainConfig = field(default_factory=TrainConfig)
    plan: PlanOptions = field(default_factory=PlanOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    cache: Path | None = option(
        "directory in which reference log-probabilities are kept for later runs and commands", default=None
    )
    push_to_hub: str | None = option(
        "hub repository to upload the finished model to, e.g. me/my-prm", default=None, metavar="REPO"
    )
    hub_private: bool = option("make that repository private", default=False)
    seed: int = option("seed of data order, pairs and adapters", default=0)
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace the existing output and start over", default=False)


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was trained.

    Attributes:
        baseline: What the objective compared rewards with (KTO's z, BCO's shift), over the run.
    """

    counts: dict[str, int]
    heldout: dict[str, float]
    kept_step: int
    wall_seconds: float
    tokens: int
    step_rule: str = ""
    baseline: dict[str, float] = field(default_factory=dict)

    def to_text(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.out}: {'already there' if self.already_done else 'trained'}"]
        rule = f"steps by {self.step_rule}, " if self.step_rule else ""
        lines.append(
            f"  {quantity(self.counts.get('examples', 0), 'example')}, {rule}"
            f"{quantity(self.tokens, 'token')} trained on in {self.wall_seconds:.0f} s; "
            f"weights of optimizer step {self.kept_step}"
        )
        for start, noun in (("", "rollout"), (HELDOUT, "held-out rollout")):
            if words := left_out(self.counts, start=start):
                number = quantity(self.counts[f"{start}rollouts"], noun)
                lines.append(f"  of {number}: {', '.join(words)}")
        if self.baseline:
            mean, zero, steps = (self.baseline[name] for name in ("mean", "zero_steps", "steps"))
            of_steps = f"{zero:.0f} of {quantity(int(steps), 'step')}"
            lines.append(f"  rewards compared with {mean:.3g} on average, with 0 in {of_steps}")
        if "auc" in self.heldout:
            lines.append(f"  held-out AUC {self.heldout['auc']:.3f}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class DryRun(Result):
    """Nothing was trained."""

    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """The plan."""
        return self.plan.to_json()

    def to_text(self) -> str:
        """The plan, for a person."""
        return self.plan.to_text()


def trainable(load: LoadOptions) -> LoadOptions:
    """How what is to be trained is loaded, where the same options say how a command loads what it reads."""
    return replace(load, dtype="auto", device_map=None)


def run(options: Options) -> Result:
    """Train, or go on with what an earlier run of the same work began; or say what it would take."""
    check_seed(options.seed)
    _check_effects(options)
    if options.config.learning_rate > _HIGH_LEARNING_RATE:
        warn(
            f"--learning-rate {options.config.learning_rate:g} is far above the usual range for "
            "language models "
            "(5e-7 to 1e-3); rewards will be nearly meaningless"
        )
    if options.plan.dry_run:
        return _dry_run(options)
    from stepcredit.training.processes import Processes
    from stepcredit.training.sources import Sources
    from stepcredit.training.workplace import claim, work_directory

    processes = Processes(options.load)
    inputs = [options.graded] + ([] if options.dev is None else [options.dev])
    for path in inputs:
        check_readable(path)
    sources = Sources.find(options.model, options.reference, options.config, options.load)
    check_keeps_inputs(options.out, filter(None, [options.model, options.reference]))
    manifest = Manifest("train", _determining(options, sources), inputs=inputs)
    output = Output(options.out, manifest, overwrite=options.overwrite)
    with output if processes.is_main else contextlib.nullcontext():
        is_done = (
            output.complete
            if processes.is_main
            else check_output(options.out, manifest, overwrite=options.overwrite)
        )
        processes.wait()
        if is_done:
            if processes.is_main:
                _push(options)
            return _result(options.out, read_manifest(options.out) or {}, already_done=True)
        work = work_directory(options.out)
        claimed: Any = contextlib.nullcontext()
        if processes.is_main:
            claimed = claim(work, manifest.settings_hash, overwrite=options.overwrite)
        with claimed:
            processes.wait()
            trained = _train(options, sources, work, manifest)
            if processes.is_main:
                _save(options, sources, trained, output)
                shutil.rmtree(work, ignore_errors=True)
    if processes.is_main:
        _push(options)
    processes.wait()
    return _result(options.out, manifest.to_json(), already_done=False)


def _check_effects(options: Options) -> None:
    """Refuse what would be without effect."""
    for flag, given, usual in (
        ("--dtype", options.load.dtype, "auto"),
        ("--device-map", options.load.device_map, None),
    ):
        if given != usual:
            raise UserError(
                "does not apply to training, which loads the weights in float32 on one device per process",
                where=flag,
                hint="pass --precision, or start it with accelerate launch",
            )
    if options.dev is None and options.config.patience is not None:
        raise UserError("needs --dev, on which the AUC is measured", where="--patience")


def _train(options: Options, sources: Sources, work: Path, manifest: Manifest) -> TrainedModel:
    """Train, and note in the manifest what came in and what came out."""
    from stepcredit.training.run import train_prm

    rollouts = read_rollouts(options.graded, skip_invalid=options.skip_invalid)
    heldout = None if options.dev is None else read_rollouts(options.dev, skip_invalid=options.skip_invalid)
    if options.dev is not None and not any(
        True for _ in read_rollouts(options.dev, skip_invalid=options.skip_invalid)
    ):
        raise DataError("there are no rollouts to measure on", where=options.dev, hint="leave out --dev")
    try:
        trained = train_prm(
            rollouts,
            sources=sources,
            config=options.config,
            work=work,
            heldout=() if heldout is None else heldout,
            load=options.load,
            cache=options.cache,
            seed=options.seed,
        )
    except DataError as error:
        # What is wrong with the rollouts as a whole is found where nobody knows their file.
        raise DataError(error.problem, where=error.where or options.graded, hint=error.hint) from error
    manifest.counts.update(trained.counts)
    skipped = sum(records.num_skipped for records in (rollouts, heldout) if records is not None)
    if skipped:
        manifest.counts["skipped_invalid"] = skipped
    manifest.ledger = trained.ledger
    manifest.seconds_before = trained.seconds_before
    manifest.notes.update(
        heldout=trained.heldout,
        kept_step=trained.kept_step,
        step_rule=trained.step_rule,
        baseline=trained.baseline,
    )
    return trained


def _dry_run(options: Options) -> DryRun:
    from stepcredit.training.sizing import plan_run

    plan = plan_run(options.graded, options.model, options.config, options.plan, options.load, options.seed)
    return DryRun(
        out=options.out,
        already_done=False,
        counts=plan.counts,
        heldout={},
        kept_step=0,
        wall_seconds=0.0,
        tokens=plan.tokens,
        plan=plan,
    )


def _determining(options: Options, sources: Sources) -> dict[str, Any]:
    """What decides the resulting weights, besides the data."""
    other = sources.other_reference
    return {
        **options.config.determining(),
        "model": sources.model.weights_hash,
        "files": settings_hash(sources.model.path),
        "reference": None if other is None else other.model_hash,
        "seed": options.seed,
        "skip_invalid": options.skip_invalid,
        "has_dev": options.dev is not None,
        **options.load.chat.determining(),
    }


def _save(options: Options, sources: Sources, trained: TrainedModel, output: Output) -> None:
    from stepcredit.training.saving import save_trained

    content = output.manifest.to_json()
    with output.replacing_folder() as directory:
        save_trained(
            trained,
            directory,
            out=options.out,
            name=options.push_to_hub or str(options.out),
            sources=sources,
            config=options.config,
            seed=options.seed,
            data_hash=output.manifest.input_hashes[str(options.graded)],
            manifest=content,
        )


def _push(options: Options) -> None:
    if options.push_to_hub is not None:
        from stepcredit.training.model_card import push_to_hub

        push_to_hub(options.out, options.push_to_hub, private=options.hub_private)


def _result(out: Path, manifest: dict[str, Any], *, already_done: bool) -> Result:
    ledger = manifest.get("ledger", Ledger().to_json())
    return Result(
        out=out,
        already_done=already_done,
        counts=manifest.get("counts", {}),
        heldout=manifest.get("heldout", {}),
        kept_step=manifest.get("kept_step", 0),
        wall_seconds=manifest.get("wall_seconds", 0.0),
        tokens=ledger["trained_tokens"],
        step_rule=manifest.get("step_rule", ""),
        baseline=manifest.get("baseline", {}),
    )

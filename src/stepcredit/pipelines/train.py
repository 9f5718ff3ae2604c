"""Graded rollouts to a trained reward model."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints.loading import LoadOptions
from stepcredit.errors import UserError
from stepcredit.options import argument, option
from stepcredit.runs import (
    Ledger,
    Manifest,
    atomic_directory,
    atomic_path,
    check_output,
    manifest_path,
    read_manifest,
    write_json,
)
from stepcredit.training.config import TrainConfig
from stepcredit.training.plan import Plan, PlanOptions

if TYPE_CHECKING:
    from stepcredit.checkpoints import Reference
    from stepcredit.training.run import TrainedModel

_STAMP = "settings_hash"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train on, from which weights, and how."""

    graded: Path = argument("graded rollouts (JSON Lines, Parquet, CSV)")
    model: str = option("initial weights: a directory or hub id", metavar="MODEL")
    out: Path = option("directory of the trained reward model", metavar="DIR")
    dev: Path | None = option(
        "graded rollouts of other prompts, for held-out metrics and the choice of weights", default=None
    )
    reference: str | None = option(
        "reference model; default is the initial weights, or the reference of an initial PRM", default=None
    )
    config: TrainConfig = field(default_factory=TrainConfig)
    plan: PlanOptions = field(default_factory=PlanOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    cache: Path | None = option(
        "directory that keeps reference log-probabilities for later runs and commands", default=None
    )
    push_to_hub: str | None = option(
        "hub repository to upload the finished model to, e.g. me/my-prm", default=None, metavar="REPO"
    )
    hub_private: bool = option("make that repository private", default=False)
    seed: int = option("seed of data order, pairs and adapters", default=0)
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace what is there, and start anew", default=False)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was trained.

    Attributes:
        out: The model's directory.
        already_done: It was there from an earlier run of the same work.
        counts: Examples in, left out and why, used.
        heldout: Held-out metrics of the kept weights.
        kept_step: Optimizer step of the kept weights.
        wall_seconds: Time taken.
        tokens: Tokens trained on.
    """

    out: Path
    already_done: bool
    counts: dict[str, int]
    heldout: dict[str, float]
    kept_step: int
    wall_seconds: float
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {**asdict(self), "out": str(self.out)}

    def to_text(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.out}: {'already there' if self.already_done else 'trained'}"]
        lines.append(
            f"  {self.counts.get('examples', 0):,} examples, {self.tokens:,} tokens trained on in "
            f"{self.wall_seconds:.0f} s; weights of step {self.kept_step}"
        )
        used = {"rollouts", "examples", "units", "prompts_with_pairs"}
        left_out = [
            f"{number:,} {name.replace('_', ' ')}"
            for name, number in self.counts.items()
            if number and name not in used and not name.startswith("heldout_")
        ]
        if left_out:
            lines.append(f"  of {self.counts['rollouts']:,} rollouts: {', '.join(left_out)}")
        if "auc" in self.heldout:
            lines.append(f"  held-out AUC {self.heldout['auc']:.3f}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class DryRun(Result):
    """Nothing was trained.

    Attributes:
        plan: What training would take.
    """

    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """The plan."""
        return self.plan.to_json()

    def to_text(self) -> str:
        """The plan, for a person."""
        return self.plan.to_text()


def run(options: Options) -> Result:
    """Train, or go on with what an earlier run of the same work began; or say what it would take."""
    if options.plan.dry_run:
        return _dry_run(options)
    from stepcredit.data import read_rollouts
    from stepcredit.training.processes import Processes
    from stepcredit.training.run import train_prm

    processes = Processes(options.load)
    options = replace(options, reference=_reference_name(options))
    manifest = _manifest(options)
    is_done = check_output(options.out, manifest, overwrite=options.overwrite)
    processes.wait()
    if is_done:
        if processes.is_main:
            _push(options)
        return _result(options.out, read_manifest(options.out) or {}, already_done=True)
    work = options.out.with_name(options.out.name + ".partial")
    if processes.is_main:
        _prepare(work, options, manifest)
    processes.wait()

    rollouts = read_rollouts(options.graded, skip_invalid=options.skip_invalid)
    heldout = None if options.dev is None else read_rollouts(options.dev, skip_invalid=options.skip_invalid)
    trained = train_prm(
        rollouts,
        model=options.model,
        config=options.config,
        work=work,
        heldout=() if heldout is None else heldout,
        reference=options.reference,
        load=options.load,
        cache=options.cache,
        seed=options.seed,
    )
    manifest.counts.update(trained.counts)
    skipped = sum(records.num_skipped for records in (rollouts, heldout) if records is not None)
    if skipped:
        manifest.counts["skipped_invalid"] = skipped
    manifest.ledger = trained.ledger
    manifest.notes.update(heldout=trained.heldout, kept_step=trained.kept_step)
    if processes.is_main:
        _save(options, trained, manifest)
        shutil.rmtree(work, ignore_errors=True)
        _push(options)
    processes.wait()
    return _result(options.out, manifest.to_json(), already_done=False)


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


def _reference_name(options: Options) -> str | None:
    """The reference to load apart from the initial weights: as given, or that of an initial PRM."""
    from stepcredit.checkpoints import PRMCard

    if options.reference is not None or not PRMCard.exists(options.model):
        return options.reference
    reference = PRMCard.read(options.model).reference
    return None if reference is None or reference.adapter_off else reference.locate(options.model)


def _manifest(options: Options) -> Manifest:
    from stepcredit.checkpoints import resolve, weights_hash

    inputs = [options.graded] + ([] if options.dev is None else [options.dev])
    for path in inputs:
        if not path.is_file():
            raise UserError("there is no such file", where=path, mend="check the path")
    settings = {
        **options.config.determining(),
        "model": weights_hash(resolve(options.model, revision=options.load.revision)),
        "reference": None if options.reference is None else weights_hash(resolve(options.reference)),
        "seed": options.seed,
        "skip_invalid": options.skip_invalid,
        "has_dev": options.dev is not None,
    }
    return Manifest("train", settings, inputs=inputs)


def _prepare(work: Path, options: Options, manifest: Manifest) -> None:
    """Make the directory where checkpoints lie until the model is finished; that of other work is refused."""
    if options.overwrite:
        shutil.rmtree(work, ignore_errors=True)
    stamp = work / _STAMP
    if _has_checkpoint(work) and (
        not stamp.is_file() or stamp.read_text(encoding="utf-8") != manifest.settings_hash
    ):
        raise UserError(
            "holds the start of a run with other settings or inputs",
            where=work,
            mend="run with the earlier settings to go on, or pass --overwrite to start anew",
        )
    with atomic_path(stamp) as temporary:
        temporary.write_text(manifest.settings_hash, encoding="utf-8")


def _has_checkpoint(work: Path) -> bool:
    return any(work.glob("checkpoint-*"))


def _save(options: Options, trained: TrainedModel, manifest: Manifest) -> None:
    from stepcredit.checkpoints import PRMCard, save_prm
    from stepcredit.training.callbacks import write_log
    from stepcredit.training.model_card import model_card
    from stepcredit.training.run import LOG_FILE

    config = options.config
    content = manifest.to_json()
    implicit = config.family == "implicit"
    card = PRMCard(
        family=config.family,
        reference=_reference(options) if implicit and not config.reference_free else None,
        beta=config.beta if implicit else None,
        objective=config.objective
        if config.balance == "none"
        else f"{config.objective} ({config.balance}-balanced)",
        step_rule=trained.step_rule,
        training_data_hash=manifest.input_hashes[str(options.graded)],
        versions=content["versions"],
        settings={**asdict(config), "seed": options.seed},
        results=trained.heldout,
    )
    with atomic_directory(options.out) as directory:
        saved = save_prm(trained.model, trained.tokenizer, card, directory, state_dict=trained.state_dict)
        write_log(directory / LOG_FILE, trained.log)
        text = model_card(
            saved, name=options.push_to_hub or str(options.out), base=options.model, manifest=content
        )
        (directory / "README.md").write_text(text, encoding="utf-8")
        write_json(manifest_path(directory), content)


def _push(options: Options) -> None:
    if options.push_to_hub is not None:
        from stepcredit.training.model_card import push_to_hub

        push_to_hub(options.out, options.push_to_hub, private=options.hub_private)


def _reference(options: Options) -> Reference:
    from stepcredit.checkpoints import Reference, resolve, weights_hash

    source = options.reference or options.model
    path = resolve(source, revision=options.load.revision)
    adapter_off = bool(options.config.lora_rank) and options.reference is None
    if Path(source).exists():
        found = Reference.local(source, options.out, weights_hash(path))
        return Reference(
            source=found.source,
            relative_path=found.relative_path,
            weights_hash=found.weights_hash,
            adapter_off=adapter_off,
        )
    return Reference(
        source=source,
        revision=options.load.revision,
        weights_hash=weights_hash(path),
        adapter_off=adapter_off,
    )


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
    )

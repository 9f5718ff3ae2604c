"""Label the steps of graded rollouts by an outcome verifier (AutoPSV, arXiv:2405.16802).

A value head is trained to predict the outcome at every token. If its confidence falls at a step by more
than a threshold, relative to its value before, that step and all later ones are labelled wrong. The
threshold is chosen on development problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import content_hash, resolve, settings_hash
from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.data import count_rows, finish_lines, read_rollouts, rollout_from_json, rollout_to_json
from stepcredit.data.sources import file_kind
from stepcredit.errors import DataError, UserError
from stepcredit.options import OutputResult, argument, option
from stepcredit.pipelines import train
from stepcredit.runs import Manifest, Progress, ResumableLines, read_manifest
from stepcredit.scorers import load_scorer
from stepcredit.training.config import TrainConfig
from stepcredit.types import Rollout
from stepcredit.wording import quantity

if TYPE_CHECKING:
    from stepcredit.labelling.autopsv import ThresholdChoice
    from stepcredit.scorers.step_models import StepModelScorer

_READ_AT_ONCE = 256


def verifier_training() -> TrainConfig:
    """A value head with the outcome as the target of every token."""
    return TrainConfig(family="value-head", objective="token-ce", learning_rate=1e-5)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit label autopsv``."""

    graded: Path = argument("graded rollouts; the verifier is trained on them and labels their steps")
    model: str = option("initial weights of the verifier: a directory or hub id", metavar="MODEL")
    dev: Path = option("graded rollouts of other prompts, on which the threshold is chosen", metavar="FILE")
    out: Path = option("rollouts with step labels to write", metavar="FILE")
    verifier: Path | None = option(
        "directory of the verifier, which is trained if it is not there yet; default is OUT.verifier",
        default=None,
    )
    choose_by: str = option(
        "choose the threshold whose step labels agree best with the outcomes of the development "
        "responses, or with the development file's own step labels",
        default="outcomes",
        choices=("outcomes", "step-labels"),
    )
    threshold: float | None = option(
        "use this relative change as the threshold instead (the paper's is -0.5)",
        default=None,
        metavar="CHANGE",
    )
    config: TrainConfig = field(
        default_factory=verifier_training, metadata={"hidden": ("family", "objective")}
    )
    load: LoadOptions = field(default_factory=LoadOptions)
    seed: int = option("seed of the verifier's training", default=0)
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace the existing output and start over", default=False)

    def __post_init__(self) -> None:
        if (self.config.family, self.config.objective) != ("value-head", "token-ce"):
            raise UserError(
                f"an outcome verifier is not {self.config.family} with {self.config.objective}",
                where="--family, --objective",
                hint="use value-head with token-ce",
            )
        if self.threshold is not None and not -1 <= self.threshold <= 0:
            raise UserError(f"must lie in [-1, 0], got {self.threshold}", where="--threshold")

    @property
    def verifier_directory(self) -> Path:
        """Where the verifier lies."""
        return self.verifier or self.out.with_name(self.out.name + ".verifier")


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was labelled.

    Attributes:
        threshold: Relative change below which a step is wrong.
        balanced_accuracy: What it reaches on the development data; ``None`` for a given threshold.
        counts: Rollouts, labelled ones, steps, wrong steps, and what was left out.
        ledger: Tokens and operations of training and reading the verifier.
    """

    verifier: Path
    threshold: float
    balanced_accuracy: float | None
    counts: Mapping[str, int]
    ledger: Mapping[str, Any]

    def to_text(self) -> str:
        """A few lines for a person."""
        counts = self.counts
        chosen = (
            ""
            if self.balanced_accuracy is None
            else f", balanced accuracy {self.balanced_accuracy:.3f} on development data"
        )
        return (
            f"{self.out}: {self.state}\n"
            f"  {counts.get('labelled', 0):,} of {quantity(counts.get('rollouts', 0), 'rollout')} labelled: "
            f"{counts.get('wrong_steps', 0):,} of {quantity(counts.get('steps', 0), 'step')} called wrong\n"
            f"  threshold {self.threshold:.3f}{chosen}"
        )


def run(options: Options) -> Result:
    """Train the verifier, choose the threshold, and label."""
    file_kind(options.out)
    manifest = _manifest(options)
    with ResumableLines(options.out, manifest, overwrite=options.overwrite, in_pieces=True) as lines:
        if lines.complete:
            return _result(options, read_manifest(options.out) or {}, already_done=True)
        _train_verifier(options)
        scorer = _load_verifier(options)
        choice = _choose(options, scorer, manifest)
        threshold = options.threshold if choice is None else choice.threshold
        assert threshold is not None
        manifest.notes["threshold"] = threshold
        manifest.notes["balanced_accuracy"] = None if choice is None else choice.balanced_accuracy
        _label(options, scorer, threshold, lines)
        earlier = read_manifest(options.verifier_directory) or {}
        manifest.ledger.model_parameters = scorer.ledger.model_parameters
        manifest.ledger.add(earlier.get("ledger", {}))
        return _result(options, _commit(lines), already_done=False)


def _manifest(options: Options) -> Manifest:
    model = resolve(options.model, revision=options.load.revision)
    settings = {
        **options.config.determining(),
        "model": content_hash(model),
        "files": settings_hash(model),
        "choose_by": options.choose_by if options.threshold is None else None,
        "threshold": options.threshold,
        "seed": options.seed,
        **options.load.chat.determining(),
    }
    return Manifest("label autopsv", settings, inputs=[options.graded, options.dev])


def _train_verifier(options: Options) -> None:
    train.run(
        train.Options(
            graded=options.graded,
            model=options.model,
            out=options.verifier_directory,
            dev=options.dev,
            config=options.config,
            load=train.trainable(options.load),
            seed=options.seed,
            skip_invalid=options.skip_invalid,
            overwrite=options.overwrite,
        )
    )


def _load_verifier(options: Options) -> StepModelScorer:
    from stepcredit.labelling.autopsv import as_verifier

    directory = options.verifier_directory
    return as_verifier(load_scorer(directory, load=options.load), str(directory))


def _choose(options: Options, scorer: StepModelScorer, manifest: Manifest) -> ThresholdChoice | None:
    """The best threshold on development data, unless one is given."""
    if options.threshold is not None:
        return None
    from stepcredit.labelling import autopsv

    changes, correct, labels = [], [], []
    rollouts = read_rollouts(options.dev, skip_invalid=options.skip_invalid)
    for rollout, confidences in chain.from_iterable(_confidences(scorer, rollouts)):
        if isinstance(confidences, Exception):
            continue
        manifest.ledger.scored_tokens += confidences.num_tokens
        if options.choose_by == "step-labels":
            changes.append(autopsv.relative_changes(confidences.values))
            labels.append(_true_labels(options, rollout, confidences.step_ends))
        elif rollout.correct is not None:
            changes.append(autopsv.relative_changes(confidences.values))
            correct.append(rollout.correct)
    if not changes:
        raise DataError("holds nothing to choose a threshold on", where=options.dev, hint="grade it first")
    if options.choose_by == "step-labels":
        return autopsv.choose_by_step_labels(changes, labels)
    return autopsv.choose_by_outcomes(changes, correct)


def _true_labels(options: Options, rollout: Rollout, ends: Sequence[int]) -> list[float]:
    labels = {label.end: label.label for label in rollout.step_labels or ()}
    if set(labels) != set(ends):
        raise DataError(
            "has no step labels at the ends of its steps",
            where=f"{options.dev}: {rollout.id}",
            hint="choose by outcomes, or pass the --steps that its labels belong to",
        )
    return [labels[end] for end in ends]


def _confidences(scorer: StepModelScorer, rollouts: Iterator[Rollout]) -> Iterator[list[tuple[Rollout, Any]]]:
    """Each rollout with its confidences or why it has none, a piece of the file at a time."""
    from stepcredit.labelling.autopsv import read_confidences

    while piece := list(islice(rollouts, _READ_AT_ONCE)):
        yield list(zip(piece, read_confidences(scorer, piece), strict=True))


def _label(options: Options, scorer: StepModelScorer, threshold: float, lines: ResumableLines) -> None:
    from stepcredit.labelling.autopsv import FIELD, label_rollout
    from stepcredit.labelling.monte_carlo import without_labels

    rollouts = read_rollouts(options.graded, skip_invalid=options.skip_invalid)
    done = lines.num_rows
    with Progress("label", count_rows(options.graded), "responses", done=done) as progress:
        # Whole pieces, since how responses lie together in a batch shows in the last digits.
        for piece in _confidences(scorer, islice(rollouts, done, None)):
            for rollout, confidences in piece:
                if isinstance(confidences, Exception):
                    labelled = without_labels(rollout, FIELD)
                else:
                    labelled = label_rollout(rollout, confidences, threshold)
                lines.append(rollout_to_json(labelled))
            progress.advance(len(piece))
            lines.checkpoint({})
    if rollouts.num_skipped:
        lines.manifest.count("skipped", rollouts.num_skipped)


def _commit(lines: ResumableLines) -> dict[str, Any]:
    """Count what the rows hold, so that a run that was stopped counts the same, and finish."""
    from stepcredit.labelling.autopsv import FIELD

    manifest = lines.manifest
    for row in lines.rows():
        rollout = rollout_from_json(row)
        manifest.count("rollouts")
        if FIELD not in rollout.extras or rollout.step_labels is None:
            manifest.count("not_encoded")
            continue
        manifest.count("labelled")
        manifest.count("steps", len(rollout.step_labels))
        manifest.count("wrong_steps", sum(label.label < 0.5 for label in rollout.step_labels))
        manifest.ledger.scored_tokens += rollout.extras[FIELD]["num_tokens"]
    lines.commit(finish_lines(lines.path))
    return manifest.to_json()


def _result(options: Options, manifest: Mapping[str, Any], *, already_done: bool) -> Result:
    return Result(
        out=options.out,
        already_done=already_done,
        verifier=options.verifier_directory,
        threshold=manifest["threshold"],
        balanced_accuracy=manifest["balanced_accuracy"],
        counts=manifest["counts"],
        ledger=manifest["ledger"],
    )

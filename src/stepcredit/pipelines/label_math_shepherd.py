"""Label the steps of graded rollouts by completions (Math-Shepherd: Monte-Carlo labels, arXiv:2312.08935).

Every step prefix is completed K times and the completions are graded; a prefix that several rollouts share is
completed K times only once. Hard, soft and log-mean-exp labels are written in one pass. A run that was killed
continues when the same command is run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.data import Records, read_rollouts, rollout_to_json, write_rows_into
from stepcredit.data.sources import file_kind
from stepcredit.errors import DataError, UserError
from stepcredit.generators.options import ADDED_SETTINGS, GeneratorOptions, SamplingOptions, make_generator
from stepcredit.generators.records import failures_path, list_failure
from stepcredit.grading import Grader, GradingItem
from stepcredit.grading.options import GraderOptions, grader_of
from stepcredit.labelling import KINDS
from stepcredit.options import OutputResult, argument, check_at_least_one, option
from stepcredit.runs import Ledger, Manifest, Progress, ResumableLines, read_manifest
from stepcredit.steps import RULE_NAMES, StepRule, choose_rule
from stepcredit.types import GenerationFailure, Generator, Rollout
from stepcredit.wording import every, quantity

if TYPE_CHECKING:
    from stepcredit.labelling.math_shepherd import LabelSettings, PrefixCompletions

_LOOKED_AT = 1000
"""Responses that ``auto`` looks at to choose one step rule for the file."""

_PREFIXES_AT_ONCE = 256
"""Prefixes whose completions are drawn, graded and kept together."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit label math-shepherd``."""

    graded: Path = argument("graded rollouts whose steps are labelled")
    out: Path = option("rollouts with step labels to write", metavar="FILE")
    num_completions: int = option("number of completions of each step prefix, K", default=8)
    label: str = option(
        "label that training uses: share of right completions (soft), whether any is right "
        "(hard), or beta * log mean exp(outcome / beta) (log-mean-exp); all three are written",
        default="soft",
        choices=KINDS,
    )
    label_beta: float = option("beta of log-mean-exp labels", default=0.5)
    adaptive: float | None = option(
        "stop completing a prefix once the 95% interval's half-width is at most WIDTH, e.g. 0.1; "
        "default is always K",
        default=None,
        metavar="WIDTH",
    )
    steps: str = option(f"how responses are split into steps: {RULE_NAMES}", default="auto", metavar="RULE")
    seed: int = option(
        "seed of the completions; completion i of a prefix has its own random stream", default=0
    )
    policy: GeneratorOptions = field(default_factory=GeneratorOptions)
    draw: SamplingOptions = field(default_factory=SamplingOptions)
    grading: GraderOptions = field(default_factory=GraderOptions)
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace the existing output and start over", default=False)

    def __post_init__(self) -> None:
        check_at_least_one(self, "num_completions")
        if not self.label_beta > 0:
            raise UserError(f"must be above 0, got {self.label_beta}", where="--label-beta")
        if self.adaptive is not None and not 0 < self.adaptive < 1:
            raise UserError(f"must lie between 0 and 1, got {self.adaptive}", where="--adaptive")


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was labelled, and what it cost.

    Attributes:
        counts: Rollouts, labelled ones, prefixes (of all rollouts, and distinct), completions, failures.
        shared: Ledger of what was computed: each distinct prefix once.
        unshared: Ledger of completing every prefix of every rollout anew.
        failures: File with the reasons, if any prefix failed.
    """

    counts: Mapping[str, int]
    shared: Mapping[str, Any]
    unshared: Mapping[str, Any]
    failures: Path | None = None

    def to_text(self) -> str:
        """A few lines for a person."""
        counts = self.counts
        lines = [
            f"{self.out}: {self.state}",
            f"  {counts.get('labelled', 0):,} of {quantity(counts.get('rollouts', 0), 'rollout')} labelled "
            f"by {quantity(counts.get('completions', 0), 'completion')} of "
            f"{quantity(counts.get('distinct_prefixes', 0), 'distinct step prefix')} "
            f"({counts.get('prefixes', 0):,} in all)",
            f"  {_cost(self.shared)}; without sharing prefixes {_cost(self.unshared)}",
        ]
        if counts.get("failed_prefixes"):
            lines.append(f"  {quantity(counts['failed_prefixes'], 'prefix')} failed, see {self.failures}")
        return "\n".join(lines)


def _cost(ledger: Mapping[str, Any]) -> str:
    text = f"{quantity(ledger['generated_tokens'], 'token')} drawn and {ledger['prompt_tokens']:,} read"
    return text + (f" ({ledger['flops']:.2g} FLOPs)" if ledger["flops"] else "")


def run(options: Options) -> Result:
    """Label, or go on where an earlier run of the same command was stopped.

    Raises:
        UserError: A mistake in the options or the input; or every prefix failed.
    """
    from stepcredit.labelling.math_shepherd import PrefixCompletions

    file_kind(options.out)
    settings = _settings(options)
    rule = _step_rule(options)
    with grader_of(options.grading) as grader:
        manifest = _manifest(options, settings, rule, grader)
        key = ("prefix", "index")
        with ResumableLines(
            options.out, manifest, overwrite=options.overwrite, key=key, in_pieces=True
        ) as lines:
            if lines.complete:
                return _result(options, read_manifest(options.out) or {}, already_done=True)
            completions = PrefixCompletions(rule, settings)
            completions.see(_rollouts(options))
            _check(options, completions)
            for row in lines.rows():
                completions.add(**row)
            generator = make_generator(options.policy, continues=True)
            _complete(options, completions, generator, grader, lines)
            _finish(options, completions, generator, lines)
    return _result(options, manifest.to_json(), already_done=False)


def _settings(options: Options) -> LabelSettings:
    from stepcredit.labelling.math_shepherd import LabelSettings

    return LabelSettings(
        num_completions=options.num_completions,
        kind=options.label,
        beta=options.label_beta,
        tolerance=options.adaptive,
    )


def _rollouts(options: Options) -> Records[Rollout]:
    return read_rollouts(options.graded, skip_invalid=options.skip_invalid)


def _step_rule(options: Options) -> StepRule:
    rule = StepRule.parse(options.steps)
    if rule.max_tokens is not None:
        raise UserError(
            "step labels need steps that do not depend on a tokenizer",
            where=f"--steps {rule}",
            hint="use --steps thinking",
        )
    if rule.kind == "auto":
        rule = choose_rule(rollout.response for rollout in islice(_rollouts(options), _LOOKED_AT))
    return rule


def _manifest(options: Options, settings: LabelSettings, rule: StepRule, grader: Grader) -> Manifest:
    return Manifest(
        "label math-shepherd",
        settings={
            **asdict(settings),
            "steps": str(rule),
            "policy": options.policy.identity(),
            "sampling": asdict(options.draw.sampling(options.seed)),
            "grader": options.grading.grader,
            **grader.settings,
        },
        inputs=[options.graded],
        added_settings=ADDED_SETTINGS,
    )


def _check(options: Options, completions: PrefixCompletions) -> None:
    if completions.num_labelled == 0:
        raise DataError(
            "no rollout of one text is graded and has a reference answer, so completions cannot be graded",
            where=options.graded,
            hint="grade them first with: stepcredit grade",
        )


def _complete(
    options: Options,
    completions: PrefixCompletions,
    generator: Generator,
    grader: Grader,
    lines: ResumableLines,
) -> None:
    """Draw and grade what is missing, round after round."""
    failures_path(options.out).unlink(missing_ok=True)
    total = completions.num_distinct * options.num_completions
    done = completions.num_drawn
    sampling = options.draw.sampling(options.seed)
    with Progress("completing", total, "completions", done=done) as progress:
        for target in completions.settings.targets:
            requests = completions.requests(_rollouts(options), target, sampling, grader.row_fields)
            # Whole pieces, since how prefixes lie together in a batch shows in the last digits.
            while piece := list(islice(requests, _PREFIXES_AT_ONCE)):
                for result in _graded(generator.generate(piece), grader):
                    if isinstance(result, GenerationFailure):
                        _fail(options, completions, result)
                        progress.advance(
                            len(result.indices), f"{quantity(completions.num_failed, 'prefix')} failed"
                        )
                        continue
                    lines.append(result)
                    completions.add(**result)
                    progress.advance()
                lines.checkpoint({})
                getattr(generator, "forget", lambda: None)()


def _graded(
    results: Iterator[Rollout | GenerationFailure], grader: Grader
) -> Iterator[dict[str, Any] | GenerationFailure]:
    """A row for each completion, graded while others are drawn, then what failed."""
    drawn: deque[Rollout] = deque()
    failures: list[GenerationFailure] = []

    def items() -> Iterator[GradingItem]:
        for result in results:
            if isinstance(result, GenerationFailure):
                failures.append(result)
            else:
                drawn.append(result)
                yield GradingItem(result.response, str(result.answer), result.prompt_id, result.extras)

    for grade in grader.grade_all(items()):
        rollout = drawn.popleft()
        yield {
            "prefix": rollout.prompt_id,
            "index": rollout.index,
            "right": grade.correct,
            "prompt_tokens": rollout.extras.get("num_prompt_tokens", 0),
            "generated_tokens": rollout.extras.get("num_generated_tokens", 0),
        }
    yield from failures


def _fail(options: Options, completions: PrefixCompletions, failure: GenerationFailure) -> None:
    completions.fail(failure.prompt_id)
    row = {"prefix": failure.prompt_id, "indices": list(failure.indices), "reason": failure.reason}
    list_failure(options.out, row)


def _finish(
    options: Options, completions: PrefixCompletions, generator: Generator, lines: ResumableLines
) -> None:
    """Write the labelled rollouts in input order, and the manifest with both ledgers."""
    if completions.num_distinct and completions.num_failed == completions.num_distinct:
        raise UserError(
            f"{every(completions.num_failed, 'prefix')} failed",
            where=options.graded,
            hint=f"see {failures_path(options.out)}",
        )
    manifest = lines.manifest
    made_by: Ledger | None = getattr(generator, "ledger", None)
    parameters = 0 if made_by is None else made_by.model_parameters
    manifest.ledger = completions.ledger(shared=True, model_parameters=parameters)
    unshared = completions.ledger(shared=False, model_parameters=parameters)
    manifest.notes["ledger_without_sharing"] = unshared.to_json()
    manifest.count("labelled", completions.num_labelled)
    manifest.count("prefixes", completions.num_prefixes)
    manifest.count("distinct_prefixes", completions.num_distinct)
    manifest.count("completions", completions.num_drawn)
    manifest.count("failed_prefixes", completions.num_failed)

    def finalise(_: Path, target: Path) -> int:
        return write_rows_into(target, options.out, _labelled(options, completions, manifest))

    lines.commit(finalise, num_rows=completions.num_rollouts)


def _labelled(
    options: Options, completions: PrefixCompletions, manifest: Manifest
) -> Iterator[dict[str, Any]]:
    rollouts = _rollouts(options)
    for rollout in rollouts:
        manifest.count("rollouts")
        yield rollout_to_json(completions.label(rollout))
    if rollouts.num_skipped:
        manifest.count("skipped", rollouts.num_skipped)


def _result(options: Options, manifest: Mapping[str, Any], *, already_done: bool) -> Result:
    path = failures_path(options.out)
    return Result(
        out=options.out,
        already_done=already_done,
        counts=manifest["counts"],
        shared=manifest["ledger"],
        unshared=manifest["ledger_without_sharing"],
        failures=path if path.exists() else None,
    )

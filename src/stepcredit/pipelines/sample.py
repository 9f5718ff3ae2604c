"""Draw responses to prompts from a policy: prompts in, rollouts out.

A run that was killed continues when the same command is run again, and draws what it would have drawn. A
prompt that fails does not stop the others; it is listed with its reason beside the output, in
OUT.failures.jsonl.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from stepcredit.data import finish_lines, parse_columns, read_rollouts, rollout_to_json, write_rows_into
from stepcredit.data.reasoning_gym import PREFIX, TaskOptions
from stepcredit.data.sources import file_kind
from stepcredit.errors import UserError
from stepcredit.generators.options import ADDED_SETTINGS, GeneratorOptions, SamplingOptions, make_generator
from stepcredit.generators.plan import Done, Plan, parse_shard, read_examples
from stepcredit.generators.records import failures_path, list_failure
from stepcredit.generators.spread import SpreadGenerator
from stepcredit.options import CommandResult, FieldsResult, argument, check_at_least_one, option
from stepcredit.runs import Ledger, Manifest, Progress, ResumableLines, read_manifest
from stepcredit.types import GenerationFailure, GenerationRequest, Generator
from stepcredit.wording import agree, every, quantity


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit sample``."""

    prompts: Path = argument(
        "prompts to answer (JSONL, JSON, CSV or Parquet), hub:NAME[:SPLIT] or reasoning-gym:TASK"
    )
    out: Path = option("rollouts to write (JSONL, CSV or Parquet, by extension)")
    num_samples: int = option("number of responses to each prompt", default=8)
    limit: int | None = option("answer only the first N prompts; default is all", default=None, metavar="N")
    seed: int = option(
        "seed of the samples; sample i of a prompt has the random stream of (seed, prompt id, i)", default=0
    )
    policy: GeneratorOptions = field(default_factory=GeneratorOptions)
    draw: SamplingOptions = field(default_factory=SamplingOptions)
    system_prompt: str | None = option("system message put before each prompt", default=None)
    few_shot: Path | None = option(
        "rollouts whose prompts and responses are put before each prompt, as examples",
        default=None,
        metavar="FILE",
    )
    shard: str | None = option(
        "I/N: split the prompts into N parts and answer only part I, to use several machines", default=None
    )
    column: tuple[str, ...] = option(
        "which column holds a field of the prompt, e.g. prompt=question (may be repeated)",
        default=(),
        metavar="FIELD=COLUMN",
    )
    subset: str | None = option("configuration of the hub's data set", default=None)
    task: TaskOptions = field(default_factory=TaskOptions)
    ray: str | None = option(
        "address of the Ray cluster to spread the work over; local starts one on this machine's cores",
        default=None,
        metavar="ADDRESS",
    )
    ray_gpus: float = option("GPUs that each of the cluster's workers needs", default=0.0)
    retry_failed: bool = option("retry the prompts that failed in a completed run", default=False)
    skip_invalid: bool = option("skip malformed prompts and count them", default=False)
    overwrite: bool = option("replace the existing output and start over", default=False)

    def __post_init__(self) -> None:
        check_at_least_one(self, "num_samples", "limit")
        parse_shard(self.shard)
        is_task = str(self.prompts).startswith(PREFIX)
        if is_task and (self.column or self.subset):
            raise UserError(
                "is for files and data sets of the hub",
                where="--column" if self.column else "--subset",
                hint="leave it out: a task of reasoning-gym has its columns",
            )
        if not is_task and self.task != TaskOptions():
            raise UserError(
                "--task-size, --task-seed and --task-setting are for reasoning-gym:TASK only",
                where=self.prompts,
                hint="use --limit and --seed for other prompts",
            )


@dataclass(frozen=True, kw_only=True)
class SampleResult(FieldsResult):
    """What ``stepcredit sample`` did.

    Attributes:
        num_prompts: Prompts read (within the limit, of the shard).
        num_cut_off: Rollouts that reached the token limit.
        other_endings: What a server called the end of rollouts that neither ended by themselves nor reached
            the limit, and how many there are of each.
        num_failed: Prompts of which at least one sample failed.
        failures: File with the reasons, if any failed.
        already_complete: The output was there; nothing was done.
    """

    out: Path
    num_prompts: int
    num_rollouts: int
    num_cut_off: int = 0
    other_endings: Mapping[str, int] = field(default_factory=dict)
    num_skipped: int = 0
    num_failed: int = 0
    failures: Path | None = None
    already_complete: bool = False
    ledger: Mapping[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        """A summary of a few lines."""
        rollouts = quantity(self.num_rollouts, "rollout")
        if self.already_complete:
            text = f"{self.out}: complete already ({rollouts})"
            if self.num_failed:
                text += f"\n{quantity(self.num_failed, 'prompt')} failed; --retry-failed tries again"
            return text
        text = f"{self.out}: {rollouts} of {quantity(self.num_prompts, 'prompt')}"
        if self.num_cut_off:
            text += f", {self.num_cut_off:,} cut off at the token limit"
        if self.other_endings:
            reasons = ", ".join(f"{reason} ({count:,})" for reason, count in self.other_endings.items())
            text += f"\nended for other reasons: {reasons}"
        if self.num_skipped:
            text += f"\n{quantity(self.num_skipped, 'malformed prompt')} skipped"
        if self.num_failed:
            text += f"\n{quantity(self.num_failed, 'prompt')} failed, see {self.failures}"
        return text


def run(options: Options) -> CommandResult:
    """Sample, or go on where an earlier run of the same command was stopped.

    Raises:
        UserError: A mistake in the options or the input; or every prompt failed.
    """
    file_kind(options.out)
    examples = read_examples(options.few_shot, options.system_prompt)
    plan = Plan.read(
        options.prompts,
        columns=parse_columns(options.column),
        subset=options.subset,
        limit=options.limit,
        shard=options.shard,
        system_prompt=options.system_prompt,
        examples=examples,
        skip_invalid=options.skip_invalid,
        task=options.task,
    )
    manifest = Manifest(
        "sample",
        settings={
            "policy": options.policy.identity(),
            "sampling": asdict(options.draw.sampling(options.seed)),
            "num_samples": options.num_samples,
            "system_prompt": options.system_prompt,
            "examples": list(examples),
            "shard": options.shard,
            **_source_settings(options),
        },
        inputs=[options.prompts] + ([options.few_shot] if options.few_shot else []),
        added_settings=ADDED_SETTINGS,
    )
    with ResumableLines(
        options.out, manifest, overwrite=options.overwrite, key=("prompt_id", "index")
    ) as lines:
        if lines.complete and not (options.retry_failed and failures_path(options.out).exists()):
            return _result(options, plan, read_manifest(options.out) or {}, already_complete=True)
        if lines.complete:
            _reopen(options.out, lines)
        done = Done(plan, options.num_samples)
        for row in lines.rows():
            done.add(row["prompt_id"], row["index"])
        generator = _generator(options)
        failures = _draw(generator, options, plan, done, lines)
        return _finish(options, plan, generator, lines, manifest, failures)


def _generator(options: Options) -> Generator:
    if options.ray is None:
        return make_generator(options.policy)
    return SpreadGenerator(options.policy, address=options.ray, beside=options.out, num_gpus=options.ray_gpus)


def _reopen(out: Path, lines: ResumableLines) -> None:
    """Make the finished output the start of a run that draws what is missing."""
    lines.reopen()
    for rollout in read_rollouts(out):
        lines.append(rollout_to_json(rollout))


def _requests(options: Options, plan: Plan, done: Done) -> Iterator[GenerationRequest]:
    sampling = options.draw.sampling(options.seed)
    for prompt in plan.prompts():
        if indices := done.missing(prompt.id):
            yield GenerationRequest(prompt=prompt, indices=indices, sampling=sampling)


def _draw(
    generator: Generator, options: Options, plan: Plan, done: Done, lines: ResumableLines
) -> list[GenerationFailure]:
    """Append what the generator draws; return what failed, which is listed as it comes."""
    failures_path(options.out).unlink(missing_ok=True)
    failures: list[GenerationFailure] = []
    total = len(plan.positions) * options.num_samples
    with Progress("sampling", total, "responses", done=done.count) as progress:
        for result in generator.generate(_requests(options, plan, done)):
            if isinstance(result, GenerationFailure):
                failures.append(result)
                row = {
                    "prompt_id": result.prompt_id,
                    "indices": list(result.indices),
                    "reason": result.reason,
                }
                list_failure(options.out, row)
                progress.advance(len(result.indices), f"{len(failures):,} failed")
            elif done.add(result.prompt_id, result.index):
                lines.append(rollout_to_json(result))
                progress.advance()
    return failures


def _finish(
    options: Options,
    plan: Plan,
    generator: Generator,
    lines: ResumableLines,
    manifest: Manifest,
    failures: list[GenerationFailure],
) -> SampleResult:
    failed = {failure.prompt_id for failure in failures}
    if len(failed) == len(plan.positions) and not lines.num_rows:
        first = agree(len(failed), "", ", the first")
        raise UserError(
            f"{every(len(failed), 'prompt')} failed{first} because {failures[0].reason}",
            where=options.prompts,
            hint=f"see {failures_path(options.out)}",
        )
    ledger: Ledger | None = getattr(generator, "ledger", None)
    if ledger is not None:
        manifest.ledger.model_parameters = ledger.model_parameters
    computed: int | None = getattr(generator, "computed_tokens", None)
    if computed is not None:
        manifest.notes["computed_tokens_of_last_run"] = computed
    manifest.count("prompts", len(plan.positions))
    manifest.count("skipped_prompts", plan.num_skipped)
    manifest.count("failed_prompts", len(failed))
    lines.commit(_Sorted(options, Done(plan, options.num_samples), manifest))
    return _result(options, plan, manifest.to_json(), already_complete=False)


class _Sorted:
    """Puts the rollouts in the order of prompt and index, and counts what they cost.

    Counting the rows themselves gives the same ledger however often the run was stopped.
    """

    def __init__(self, options: Options, done: Done, manifest: Manifest) -> None:
        self._options, self._done, self._manifest = options, done, manifest

    def __call__(self, partial: Path, target: Path) -> int:
        """Write the sorted rows of ``partial`` to ``target``, in the format of the output's name."""
        with open(partial, "rb") as source:
            lines = self._sorted(source)
            if finish_lines(self._options.out) is None:
                with open(target, "wb") as sink:
                    sink.writelines(lines)
            else:
                write_rows_into(target, self._options.out, map(json.loads, lines))
        return self._done.count

    def _sorted(self, source: IO[bytes]) -> Iterator[bytes]:
        places, offsets = array("q"), array("q")
        offset = 0
        for line in source:
            row = json.loads(line)
            if self._done.add(row["prompt_id"], row["index"]):
                places.append(self._done.place(row["prompt_id"], row["index"]))
                offsets.append(offset)
                self._count(row)
            offset += len(line)
        for number in sorted(range(len(places)), key=places.__getitem__):
            source.seek(offsets[number])
            yield source.readline()

    def _count(self, row: Mapping[str, Any]) -> None:
        counts, ledger = self._manifest, self._manifest.ledger
        counts.count("rollouts")
        counts.count("cut_off_rollouts", int(row["finish_reason"] == "length"))
        if (ending := row.get("source_finish_reason")) is not None:
            endings = counts.notes.setdefault("other_endings", {})
            endings[ending] = endings.get(ending, 0) + 1
        ledger.generated_tokens += row.get("num_generated_tokens") or 0
        if self._done.num_done(row["prompt_id"]) == 1:
            ledger.prompt_tokens += row.get("num_prompt_tokens") or 0


def _source_settings(options: Options) -> dict[str, Any]:
    """What decides which prompts are read, besides the content of a file."""
    hub = str(options.prompts) if str(options.prompts).startswith("hub:") else None
    settings: dict[str, Any] = {"column": list(options.column), "subset": options.subset, "hub": hub}
    if str(options.prompts).startswith(PREFIX):
        settings["task"] = {"source": str(options.prompts), **asdict(options.task)}
    # Without a limit the settings are those of outputs that were made before there was one.
    return settings if options.limit is None else {**settings, "limit": options.limit}


def _result(
    options: Options, plan: Plan, manifest: Mapping[str, Any], *, already_complete: bool
) -> SampleResult:
    counts = manifest.get("counts", {})
    path = failures_path(options.out)
    return SampleResult(
        out=options.out,
        num_prompts=len(plan.positions),
        num_rollouts=counts.get("rollouts", 0),
        num_cut_off=counts.get("cut_off_rollouts", 0),
        other_endings=manifest.get("other_endings", {}),
        num_skipped=plan.num_skipped,
        num_failed=counts.get("failed_prompts", 0),
        failures=path if path.exists() else None,
        already_complete=already_complete,
        ledger=manifest.get("ledger", {}),
    )

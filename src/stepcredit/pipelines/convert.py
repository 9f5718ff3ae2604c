"""Convert prompts or rollouts from one file format to another, and report what the new format cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stepcredit.data import named_format, parse_columns, read_as, write_rows_into
from stepcredit.data.cells import keeps_type
from stepcredit.data.foreign.registry import ForeignFormat
from stepcredit.data.sources import file_kind
from stepcredit.errors import DataError, UserError
from stepcredit.options import OutputResult, argument, check_at_least_one, option
from stepcredit.runs import Manifest, Output, Progress, read_manifest
from stepcredit.wording import quantity

_READ = (
    "prompts, rollouts, ultrainteract, ultrafeedback, trl-preference, trl-unpaired, trl-stepwise, "
    "openrlhf-ce, verl, prm800k, math-shepherd, processbench, prmbench, bigbench-mistake, implicitprm-bon"
)
_WRITTEN = "prompts, rollouts, trl-preference, trl-unpaired, trl-stepwise, openrlhf-ce, verl, math-shepherd"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to convert, from which format to which."""

    source: str = argument("file (.jsonl, .json, .csv, .parquet; .gz) or data set (hub:NAME[:SPLIT])")
    out: Path = option("file to write; its extension decides the file type", metavar="FILE")
    from_format: str = option(
        f"format of the source: {_READ}", flag="--from", default="rollouts", metavar="FORMAT"
    )
    to_format: str = option(f"format to write: {_WRITTEN}", flag="--to", default="rollouts", metavar="FORMAT")
    column: tuple[str, ...] = option(
        "which column of the source holds a field, e.g. prompt=question (may be repeated)",
        default=(),
        metavar="FIELD=COLUMN",
    )
    subset: str | None = option("configuration of the hub's data set", default=None)
    limit: int | None = option("convert only the first N records", default=None)
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace the existing output", default=False)


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was converted.

    Attributes:
        lost: What the new format has no place for: field or kind of record to how many.
    """

    read: int
    written: int
    skipped: int
    lost: dict[str, int]

    def to_text(self) -> str:
        """A few lines for a person."""
        rows, records = quantity(self.written, "row"), quantity(self.read, "record")
        lines = [f"{self.out}: {self.state}, {rows} from {records}"]
        if self.skipped:
            lines.append(f"  {quantity(self.skipped, 'malformed row')} skipped")
        lines += [f"  lost: {what} ({count:,})" for what, count in self.lost.items()]
        return "\n".join(lines if self.lost else [*lines, "  nothing lost"])


def run(options: Options) -> Result:
    """Convert, streaming; the output appears when it is whole."""
    check_at_least_one(options, "limit")
    file_kind(options.out)
    source, target = named_format(options.from_format), named_format(options.to_format, to_write=True)
    if source.holds_prompts and not target.holds_prompts:
        raise UserError("prompts have no responses", where="--to", hint="use --to prompts")
    manifest = Manifest("convert", _settings(options), inputs=[options.source])
    with Output(options.out, manifest, overwrite=options.overwrite) as output:
        if output.complete:
            return _result(options, read_manifest(options.out) or {}, already_done=True)
        with output.replacing() as temporary:
            _convert(options, target, manifest, temporary)
    return _result(options, manifest.to_json(), already_done=False)


def _convert(options: Options, target: ForeignFormat, manifest: Manifest, temporary: Path) -> None:
    records = read_as(
        options.source,
        options.from_format,
        columns=parse_columns(options.column),
        subset=options.subset,
        skip_invalid=options.skip_invalid,
    )
    lost: Counter[str] = Counter()
    assert target.write is not None
    with Progress(f"convert {options.source}", options.limit, "records") as progress:
        counted = _counted(islice(records, options.limit), manifest, progress)
        rows = _not_none(target.write(counted, lost), options, lost)
        manifest.counts["written"] = write_rows_into(temporary, options.out, rows)
    if records.num_skipped:
        manifest.counts["skipped"] = records.num_skipped
        manifest.notes["first_skipped"] = records.first_skipped
    manifest.notes["lost"] = {what: count for what, count in sorted(lost.items()) if count}


def _settings(options: Options) -> dict[str, Any]:
    return {
        "source": None if Path(options.source).exists() else options.source,
        "from": options.from_format,
        "to": options.to_format,
        "column": list(options.column),
        "subset": options.subset,
        "limit": options.limit,
        "skip_invalid": options.skip_invalid,
    }


def _counted(records: Iterator[Any], manifest: Manifest, progress: Progress) -> Iterator[Any]:
    for record in records:
        manifest.count("read")
        progress.advance()
        yield record


def _not_none(
    rows: Iterator[dict[str, Any]], options: Options, lost: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Pass rows on; if there were none, say why in place of writing an empty file."""
    is_csv = ".csv" in options.out.suffixes
    empty = True
    for row in rows:
        empty = False
        if is_csv:
            lost["types of extra fields"] += any(
                value is not None and not isinstance(value, str) and not keeps_type(name)
                for name, value in row.items()
            )
        yield row
    if empty:
        reasons = ", ".join(f"{what}: {count:,}" for what, count in lost.items() if count)
        raise DataError(
            f"nothing to write as {options.to_format} ({reasons or 'there are no records'})",
            where=options.source,
        )


def _result(options: Options, manifest: dict[str, Any], *, already_done: bool) -> Result:
    counts, lost = manifest["counts"], manifest.get("lost")
    return Result(
        out=options.out,
        already_done=already_done,
        read=counts.get("read", 0),
        written=counts.get("written", 0),
        skipped=counts.get("skipped", 0),
        lost=lost if isinstance(lost, dict) else {},
    )

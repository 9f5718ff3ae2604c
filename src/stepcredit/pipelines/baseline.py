"""Score rollouts without a model: random, length, self-consistency, oracle.

The output is an ordinary score file, so every evaluation can compare it with reward models. (A model's own
log-probability is a baseline too: ``stepcredit score --family log-probability``.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.data import Records, read_rollouts, score_to_json, write_rows_into
from stepcredit.data.sources import file_kind
from stepcredit.errors import DataError
from stepcredit.options import OutputResult, argument, option
from stepcredit.runs import Manifest, Output
from stepcredit.types import Rollout
from stepcredit.wording import quantity


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit baseline``."""

    rollouts: Path = argument("rollouts to score (graded ones for self-consistency and oracle)")
    by: str = option(
        "what the score is: chance, length, agreement with the prompt's other answers, or the truth",
        choices=("random", "shortest", "longest", "self-consistency", "oracle"),
    )
    out: Path = option("score file to write (.jsonl, .jsonl.gz, .parquet)", metavar="FILE")
    seed: int = option("seed for --by random", default=0)
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace the existing output", default=False)


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was scored."""

    counts: dict[str, int]

    def to_text(self) -> str:
        """One line for a person."""
        return f"{self.out}: {self.state}, {quantity(self.counts.get('scored', 0), 'response')}"


def run(options: Options) -> Result:
    """Score a file."""
    file_kind(options.out)
    manifest = Manifest("baseline", {"by": options.by, "seed": options.seed}, inputs=[options.rollouts])
    with Output(options.out, manifest, overwrite=options.overwrite) as output:
        if not output.complete:
            with output.replacing() as temporary:
                if not write_rows_into(temporary, options.out, _scores(options, manifest)):
                    raise DataError("holds no response", where=options.rollouts, hint="check the file")
        return Result(out=options.out, already_done=output.complete, counts=output.counts)


def _scores(options: Options, manifest: Manifest) -> Iterator[dict[str, Any]]:
    from stepcredit.scorers.baselines import make_baseline

    def rollouts() -> Records[Rollout]:
        return read_rollouts(options.rollouts, skip_invalid=options.skip_invalid)

    baseline = make_baseline(options.by, rollouts, seed=options.seed)
    source = rollouts()
    for score in baseline.score_all(source):
        manifest.count("scored")
        yield score_to_json(score)
    if source.num_skipped:
        manifest.count("malformed", source.num_skipped)

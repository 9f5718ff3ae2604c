"""Score the steps, tokens and responses of rollouts with any reward model."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.data import (
    Records,
    count_rows,
    finish_lines,
    read_rollouts_as,
    score_from_json,
    score_to_json,
)
from stepcredit.data.foreign import ROLLOUT_FORMATS
from stepcredit.encoding import EncodingError
from stepcredit.errors import DataError, UserError
from stepcredit.options import OutputResult, argument, check_at_least_one, option
from stepcredit.runs import (
    Manifest,
    Progress,
    ResumableLines,
    check_keeps_inputs,
    locked,
    read_manifest,
    warn,
    write_text,
)
from stepcredit.scorers.options import ScorerOptions
from stepcredit.steps import StepRule, choose_rule, listed_steps
from stepcredit.types import ResponseScore, Rollout
from stepcredit.wording import quantity

if TYPE_CHECKING:
    from stepcredit.scorers.base import ResponseScorer
    from stepcredit.scorers.spread import SpreadScorer

_LOOKED_AT = 1000
"""Responses that ``auto`` looks at to choose one step rule for the file."""

_PUBLISHED_RULE = r"regex:(?=Step \d+:)"
"""Where the published best-of-n evaluator cuts, whatever the model or the user say."""


@dataclass(frozen=True, kw_only=True)
class Options(ScorerOptions):
    """What to score, with which reward model, by which conventions."""

    input: Path | None = argument("rollouts (JSON Lines, JSON, Parquet, CSV)", default=None)
    format: str = option(f"format of INPUT: {ROLLOUT_FORMATS}", default="rollouts", metavar="FORMAT")
    tokens: bool = option("write token rewards too", default=False)
    out: Path | None = option(
        "score file to write (.jsonl, .jsonl.gz, .parquet)", default=None, metavar="FILE"
    )
    html: Path | None = option(
        "also write a heat map: an HTML page with steps coloured by reward, and a token view",
        default=None,
        metavar="FILE",
    )
    html_rows: int = option("heat map: show the first N rows", default=20)
    html_ids: tuple[str, ...] = option(
        "heat map: show the rows with these ids instead", default=(), metavar="ID"
    )
    text: str | None = option(
        "score this one solution and print its steps coloured by reward; - reads it from standard input",
        default=None,
    )
    prompt: str | None = option("the problem that --text answers", default=None)
    ray: str | None = option(
        "address of the Ray cluster to spread the work over; local starts one on this machine's cores",
        default=None,
        metavar="ADDRESS",
    )
    ray_gpus: float = option("GPUs that each of the cluster's workers needs", default=0.0)
    skip_invalid: bool = option(
        "skip malformed rows and responses that cannot be scored, and count them", default=False
    )
    overwrite: bool = option("replace the existing output and start over", default=False)


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was scored.

    Attributes:
        counts: Rows scored, those of empty responses among them, and rows left out by reason.
    """

    counts: dict[str, int]
    step_rule: str
    html: Path | None = None

    def to_text(self) -> str:
        """A few lines for a person."""
        scores = quantity(self.counts.get("scored", 0), "score")
        lines = [f"{self.out}: {self.state}, {scores}, steps by {self.step_rule}"]
        if empty := self.counts.get("empty"):
            lines.append(f"  {empty:,} of them for empty responses, scored by the end-of-turn token alone")
        if refused := self.counts.get("refused_answers"):
            lines.append(f"  {quantity(refused, 'answer')} of the judge refused and drawn again or given up")
        kept = ("scored", "empty", "refused_answers")
        left_out = [f"{n:,} {reason}" for reason, n in self.counts.items() if reason not in kept and n]
        if left_out:
            lines.append(f"  left out: {', '.join(left_out)}")
        if self.html is not None:
            lines.append(f"{self.html}: heat map")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class TextResult:
    """One scored solution."""

    score: ResponseScore

    def to_json(self) -> dict[str, Any]:
        """The score as a row of a score file."""
        return score_to_json(self.score)

    def to_text(self) -> str:
        """The solution with each step's reward, coloured where standard output is a terminal that can."""
        from stepcredit.reports.terminal import render_terminal

        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        return render_terminal(self.score, colour=sys.stdout.isatty() and not plain)


def run(options: Options) -> Result | TextResult:
    """Score a file, or with ``text`` one solution.

    Raises:
        UserError: Options, input or checkpoints do not fit together.
    """
    if options.text is not None:
        return _run_text(options)
    if options.input is None or options.out is None:
        raise UserError("needs INPUT and --out, or --text with --prompt", where="score")
    _check(options, options.input, options.out)
    finalise = finish_lines(options.out)
    rule = _step_rule(options, options.input)
    manifest = _manifest(options, options.input, rule)
    scorer: ResponseScorer | None = None
    with (
        locked(options.html),
        ResumableLines(options.out, manifest, overwrite=options.overwrite, in_pieces=True) as lines,
    ):
        if not lines.complete:
            if options.ray is None:
                scorer = options.load_scorer(steps=rule, with_tokens=options.tokens)
            _score_file(options, options.input, scorer or _spread_scorer(options, options.out, rule), lines)
            lines.commit(finalise)
        if options.html is not None:
            scorer = scorer or options.load_scorer(steps=rule)
            _write_heat_map(options, options.input, options.html, scorer)
    counts = (read_manifest(options.out) or {}).get("counts", {}) if lines.complete else manifest.counts
    return Result(
        out=options.out, already_done=lines.complete, counts=counts, step_rule=rule, html=options.html
    )


def _check(options: Options, path: Path, out: Path) -> None:
    if options.prompt is not None:
        raise UserError("needs --text, the solution to score", where="--prompt", hint="or leave it out")
    for flag, output in (("--out", out), ("--html", options.html)):
        if output is not None:
            check_keeps_inputs(output, [path], flag=flag)
    if options.html is None:
        if options.html_ids:
            raise UserError("needs --html, the page to write", where="--html-ids")
        return
    if options.html.is_dir():
        raise UserError("is a folder", where=options.html, hint="name a file as --html")
    if options.html.absolute() == out.absolute():
        raise UserError("is also the score file", where=options.html, hint="choose another --html")
    check_at_least_one(options, "html_rows")


def _run_text(options: Options) -> TextResult:
    if options.prompt is None:
        raise UserError("needs the problem too", where="--text", hint="pass --prompt TEXT")
    outputs = (("INPUT file", options.input), ("--out", options.out), ("--html", options.html))
    for name, given in outputs:
        if given is not None:
            raise UserError(f"takes no {name}", where="--text", hint="leave one of them out")
    assert options.text is not None
    try:
        response = sys.stdin.read() if options.text == "-" else options.text
        (options.prompt + response).encode()
    except UnicodeError as error:
        raise UserError("is not valid UTF-8", where="--text or --prompt") from error
    return TextResult(score=options.load_scorer(with_tokens=options.tokens).score(options.prompt, response))


def _step_rule(options: Options, path: Path) -> str:
    """The rule asked for or the model's own; ``auto`` is decided once for the whole file."""
    rule = StepRule.parse(options.own_step_rule())
    if options.convention == "best-of-n":
        if options.steps not in (None, _PUBLISHED_RULE):
            warn(f"--steps {options.steps} is not used: the best-of-n convention always splits at 'Step 1:'")
        return _PUBLISHED_RULE
    if rule.kind == "auto":
        first = islice(_rollouts(options, path), _LOOKED_AT)
        unlisted = [
            rollout.response
            for rollout in first
            if rollout.turns is not None or listed_steps(rollout) is None
        ]
        if unlisted:
            rule = choose_rule(unlisted)
            message = f"steps: by {rule}, chosen from the first {len(unlisted):,} responses"
            print(message, file=sys.stderr)
    return str(rule)


def _manifest(options: Options, path: Path, rule: str) -> Manifest:
    settings = {
        **options.determining(),
        "format": options.format,
        "steps": rule,
        "tokens": options.tokens,
        "skip_invalid": options.skip_invalid,
    }
    return Manifest("score", settings, inputs=[path])


def _rollouts(options: Options, path: Path) -> Records[Rollout]:
    return read_rollouts_as(path, options.format, skip_invalid=options.skip_invalid)


def _spread_scorer(options: Options, out: Path, rule: str) -> SpreadScorer:
    from stepcredit.scorers.spread import SpreadScorer

    assert options.ray is not None
    return SpreadScorer(
        options,
        steps=rule,
        with_tokens=options.tokens,
        address=options.ray,
        beside=out,
        num_gpus=options.ray_gpus,
    )


def _score_file(
    options: Options, path: Path, scorer: ResponseScorer | SpreadScorer, lines: ResumableLines
) -> None:
    """Score piece by piece; the pieces depend on the input only, so every run makes the same ones."""
    # A piece's number means something only among pieces that are cut alike.
    if lines.state.get("window") != scorer.window:
        lines.restart()
    state = lines.state
    left_out = Counter(state.get("left_out", {}))
    done = set(state.get("pieces", ()))
    scorer.ledger.add(state.get("ledger", {}))
    scorer.counts.update(state.get("counts", {}))
    name = state.get("scorer", "")

    def count(error: EncodingError) -> None:
        left_out[error.kind] += 1

    empty = sum(score_from_json(row).is_empty for row in lines.rows())
    rollouts = _rollouts(options, path)
    on_skip = count if options.skip_invalid else None
    with Progress("score", count_rows(path), "responses", done=lines.num_rows) as progress:
        for number, scores in scorer.score_pieces(rollouts, done=done, on_skip=on_skip):
            before = lines.num_rows
            for score in scores:
                lines.append(score_to_json(score))
                empty += score.is_empty
            progress.advance(lines.num_rows - before)
            done.add(number)
            name = scorer.name or name
            lines.checkpoint(
                {
                    "window": scorer.window,
                    "pieces": sorted(done),
                    "ledger": scorer.ledger.to_json(),
                    "left_out": dict(left_out),
                    "counts": dict(scorer.counts),
                    "scorer": name,
                }
            )
    if not lines.num_rows:
        raise DataError("holds no response that can be scored", where=path, hint="check the file")
    counts = lines.manifest.counts
    counts["scored"] = lines.num_rows
    if empty:
        counts["empty"] = empty
    counts.update(sorted(left_out.items()))
    counts.update(scorer.counts)
    if rollouts.num_skipped:
        counts["malformed"] = rollouts.num_skipped
    lines.manifest.ledger = scorer.ledger
    lines.manifest.notes.update(scorer=name)


def _write_heat_map(options: Options, path: Path, html: Path, scorer: ResponseScorer) -> None:
    """Score the chosen rows again, with token rewards, and draw them."""
    from stepcredit.reports.heatmap import render_heatmap

    rollouts = list(_chosen(options, _rollouts(options, path)))
    missing = set(options.html_ids) - {rollout.id for rollout in rollouts}
    if missing:
        raise UserError(f"no row has the id {min(missing)!r}", where="--html-ids")
    scorer.with_tokens = True
    left_out: list[EncodingError] = []
    scores = list(scorer.score_all(rollouts, on_skip=left_out.append if options.skip_invalid else None))
    write_text(html, render_heatmap(rollouts, scores))


def _chosen(options: Options, rollouts: Iterable[Rollout]) -> Iterator[Rollout]:
    if not options.html_ids:
        return islice(rollouts, min(options.html_rows, sys.maxsize))
    wanted = set(options.html_ids)
    return (rollout for rollout in rollouts if rollout.id in wanted)
